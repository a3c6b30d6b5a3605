"""Flags merged into configs."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from mobileone_mm.apis import settings
from mobileone_mm.errors import InputError


@pytest.fixture
def work_dir(tmp_path):
    for name in ('epoch_2.pth', 'epoch_10.pth', 'epoch_9.pth', 'best_acc_epoch_99.pth'):
        (tmp_path / name).touch()
    return tmp_path


def test_latest_is_the_one_noted(work_dir):
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
    assert settings.latest_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')


def test_latest_in_a_folder_that_was_moved(work_dir):
    (work_dir / 'last_checkpoint').write_text('/elsewhere/epoch_9.pth')
    assert settings.latest_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')


@pytest.mark.parametrize('note', ['', '/elsewhere/epoch_50.pth', None])
def test_latest_by_number(note, work_dir):
    if note is not None:
        (work_dir / 'last_checkpoint').write_text(note)
    assert settings.latest_checkpoint(work_dir) == str(work_dir / 'epoch_10.pth')


def test_nothing_to_resume(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert settings.set_resume(cfg, 'auto') is None
    assert cfg.resume is False


def test_resume_takes_the_seed_that_was_drawn(tmp_path):
    torch.save({'meta': {'iter': 3, 'epoch': 1, 'seed': 77}, 'state_dict': {}}, tmp_path / 'a.pth')
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert settings.set_resume(cfg, tmp_path / 'a.pth') == str(tmp_path / 'a.pth')
    assert cfg.randomness.seed == 77
    cfg = Config(dict(work_dir=str(tmp_path), randomness=dict(seed=5)))
    settings.set_resume(cfg, tmp_path / 'a.pth')
    assert cfg.randomness.seed == 5


def test_picture_loaders():
    step = dict(type='LoadImageFromFile')
    ours = dict(type='mobileone_mm.LoadImage', on_error='raise')
    other = dict(type='LoadImageFromNDArray')
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(datasets=[dict(pipeline=[step, other])])),
            val_dataloader=dict(dataset=dict(pipeline=[step])),
            test_dataloader=dict(dataset=dict(pipeline=[ours])),
            custom_hooks=[dict(type='SwitchRecipeHook', schedule=[dict(train_pipeline=[step])])],
        )
    )
    settings.survive_broken_pictures(cfg)
    first, second = cfg.train_dataloader.dataset.datasets[0].pipeline
    assert first == dict(type='mobileone_mm.LoadImage', on_error='skip')
    assert second == other
    assert cfg.val_dataloader.dataset.pipeline[0].on_error == 'blank'
    assert cfg.test_dataloader.dataset.pipeline[0].on_error == 'raise'
    assert cfg.custom_hooks[0].schedule[0].train_pipeline[0].on_error == 'skip'
    settings.survive_broken_pictures(cfg, stop=True)
    assert cfg.val_dataloader.dataset.pipeline[0].on_error == 'raise'


def test_workers_that_are_not_there():
    cfg = Config(dict(train_dataloader=dict(num_workers=0, persistent_workers=True)))
    settings.fit_loaders(cfg)
    assert cfg.train_dataloader.persistent_workers is False


def test_auto_scale_lr():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=64)))
    settings.set_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True
    with pytest.raises(InputError, match='--auto-scale-lr'):
        settings.set_auto_scale_lr(Config(dict(auto_scale_lr=dict(enable=False))))
