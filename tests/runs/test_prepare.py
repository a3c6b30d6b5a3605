"""Flags merged into configs."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from mobileone_mm.config import settings
from mobileone_mm.errors import InputError


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


def test_image_loaders():
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
    settings.survive_broken_files(cfg)
    first, second = cfg.train_dataloader.dataset.datasets[0].pipeline
    assert first == dict(type='mobileone_mm.LoadImage', on_error='skip')
    assert second == other
    assert cfg.val_dataloader.dataset.pipeline[0].on_error == 'blank'
    assert cfg.test_dataloader.dataset.pipeline[0].on_error == 'raise'
    assert cfg.custom_hooks[0].schedule[0].train_pipeline[0].on_error == 'skip'
    settings.survive_broken_files(cfg, stop=True)
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
