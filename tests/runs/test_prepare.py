"""The config pass: the order, the record and the switches of the changes; each change by itself."""

import pytest
import torch
from mmengine.config import Config
from mmengine.device import utils

from mobileone_mm.data.image_files import IMAGE_SUFFIXES
from mobileone_mm.errors import InputError
from mobileone_mm.runs import changes
from mobileone_mm.runs.changes import Flags
from mobileone_mm.runs.prepare import (
    CHANGES,
    PREDICT,
    READ,
    ROBUSTNESS,
    TEACHERS,
    TRAIN,
    TRAIN_IMAGES,
    prepare,
)

FASTER = 'mobileone_mm.RandomResizedCrop'


@pytest.fixture
def prepared(tiny_config, tmp_path, fresh_mmengine):
    config = tiny_config('cls')

    def run(*off, **flags):
        options = {f'changes.{name}': False for name in off}
        return prepare(config, options, TRAIN, work_dir=str(tmp_path / 'run'), **flags)

    return run


def steps(cfg, loader='train_dataloader'):
    return [step.type for step in cfg[loader].dataset.pipeline]


def test_changes_are_named_and_stand_in_the_config(prepared):
    found = prepared()
    names = ['workers', 'work_dir', 'broken_files', 'image_suffixes', 'faster_transforms']
    assert list(found.changes) == names
    assert found.changes['image_suffixes'] == [
        f'{loader}.dataset.extensions: (not set) -> {list(IMAGE_SUFFIXES)}'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ]
    assert steps(found.cfg)[:2] == ['mobileone_mm.LoadImage', FASTER]
    assert found.cfg.changes == found.changes
    assert found.changes['faster_transforms'] == [
        f'train_dataloader.dataset.pipeline.1.type: RandomResizedCrop -> {FASTER}'
    ]
    assert steps(found.written)[:2] == ['LoadImageFromFile', 'RandomResizedCrop']
    assert found.written.get('work_dir') is None
    table = found.table()
    assert 'changes.NAME=False' in table
    assert all(len(line) < 160 for line in table.splitlines())
    assert [line.split()[0] for line in table.splitlines()[1:]] == list(found.changes)


@pytest.mark.parametrize('purpose', [READ, PREDICT, TRAIN_IMAGES, TEACHERS, ROBUSTNESS, TRAIN])
def test_changes_are_logged(purpose, tiny_config, fresh_mmengine, tmp_path, capsys):
    """A Runner logs them into the file of its run; without changes there is nothing to log."""
    found = prepare(tiny_config('cls'), {}, purpose, work_dir=str(tmp_path))
    printed = capsys.readouterr().out
    assert bool(found.changes) is (purpose is not READ)
    assert printed.count(found.table()) == (0 if purpose in (READ, TRAIN) else 1)
    assert printed.count('changes.NAME=False') == printed.count(found.table())


@pytest.mark.parametrize(
    ('name', 'flag', 'value'),
    [('resume', 'resume', 'auto'), ('no_validate', 'no_validate', True),
     ('broken_files', 'stop_at_broken_images', True)],
)  # fmt: skip
def test_a_flag_contradicts_the_switch_of_its_change(name, flag, value, prepared):
    option = flag.replace('_', '-')
    with pytest.raises(InputError, match=f'^--{option}: contradicts changes.{name}=False'):
        prepared(name, **{flag: value})


@pytest.mark.parametrize('name', [*CHANGES])
def test_each_change_is_switched_off_by_its_name(name, prepared):
    if name in ('work_dir', 'load_from', 'checks'):  # without the last, no weights are fitted
        with pytest.raises(InputError, match=f'{name}: got False; a run needs this change'):
            prepared(name)
        return
    found = prepared(name)
    if name not in TRAIN.changes:
        assert name not in found.changes
        return
    assert found.changes[name] is None
    assert f'{name}  ' in found.table()
    assert 'switched off' in found.table()
    assert found.cfg.changes[name] is False
    assert (steps(found.cfg)[0] == 'LoadImageFromFile') is (name == 'broken_files')
    assert (steps(found.cfg)[1] == 'RandomResizedCrop') is (name == 'faster_transforms')
    assert ('extensions' in found.cfg.train_dataloader.dataset) is (name != 'image_suffixes')
    assert ('collate_fn' in found.cfg.train_dataloader) is (name != 'workers')


def test_a_dumped_config_gives_the_same_run(prepared, tmp_path, monkeypatch):
    """It has the data root that the variable gave."""
    first = prepared('broken_files', no_validate=True).cfg
    first.dump(tmp_path / 'dumped.py')
    monkeypatch.delenv('IMAGENET_ROOT')
    again = prepare(tmp_path / 'dumped.py', {}, TRAIN)
    assert again.changes == {'broken_files': None}
    assert {**again.cfg.to_dict(), 'changes': 0} == {**first.to_dict(), 'changes': 0}
    assert prepare(tmp_path / 'dumped.py').cfg.changes == {'broken_files': False}


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'changes.worker': False}, "changes has no 'worker'; did you mean 'workers'"),
        ({'changes.workers': 'no'}, "changes.workers: got 'no'; expected False or True"),
        ({'changes': True}, 'changes: got True; expected a dict'),
        ({'changes': False}, 'changes: got False; expected a dict'),
    ],
)
def test_names_that_are_no_changes(options, said, tiny_config):
    with pytest.raises(InputError, match=said):
        prepare(tiny_config('cls'), options, PREDICT)


def test_order():
    """Work dir, then the checkpoint in it, then its hook; stored outputs name the host's transforms."""
    order = list(CHANGES)
    for first, second in (
        ('work_dir', 'resume'),
        ('resume', 'checks'),
        ('broken_files', 'stored_outputs'),
        ('stored_outputs', 'faster_transforms'),
    ):
        assert order.index(first) < order.index(second)


@pytest.mark.parametrize('own', [None, 5])
def test_resume_takes_the_seed_that_was_drawn(own, tmp_path):
    torch.save({'meta': {'iter': 3, 'epoch': 1, 'seed': 77}, 'state_dict': {}}, tmp_path / 'a.pth')
    cfg = Config(dict(work_dir=str(tmp_path), randomness=dict(seed=own)))
    changes.resume(cfg, Flags(resume='auto'))  # no checkpoint has the name of a run's
    assert (cfg.load_from, cfg.resume) == (None, False)
    changes.resume(cfg, Flags(resume=str(tmp_path / 'a.pth')))
    assert (cfg.load_from, cfg.resume) == (str(tmp_path / 'a.pth'), True)
    assert cfg.randomness.seed == (own or 77)


@pytest.mark.parametrize('stop', [False, True])
def test_broken_files(stop):
    """Of images and masks; in mmseg's scope alone, the bare name is that of its masks."""
    step, mask = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
    ours = dict(type='mobileone_mm.LoadImage', on_error='raise')
    other = dict(type='LoadImageFromNDArray')
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(decode_head=dict(num_classes=4)),
            train_dataloader=dict(dataset=dict(datasets=[dict(pipeline=[step, mask, other])])),
            val_dataloader=dict(dataset=dict(pipeline=[step, mask])),
            test_dataloader=dict(dataset=dict(pipeline=[ours])),
            custom_hooks=[dict(type='SwitchRecipeHook', schedule=[dict(train_pipeline=[step])])],
        )
    )
    changes.broken_files(cfg, Flags(stop_at_broken_images=stop))
    first, mask, second = cfg.train_dataloader.dataset.datasets[0].pipeline
    image, other_mask = cfg.val_dataloader.dataset.pipeline
    found = [
        first,
        image,
        cfg.test_dataloader.dataset.pipeline[0],
        cfg.custom_hooks[0].schedule[0].train_pipeline[0],
    ]
    assert {node.type for node in found} == {'mobileone_mm.LoadImage'}
    expected = ['raise'] * 4 if stop else ['skip', 'blank', 'raise', 'skip']
    assert [node.on_error for node in found] == expected
    common = dict(type='mobileone_mm.LoadSegAnnotations', num_classes=4, ignore_index=255)
    for node, then in ((mask, 'skip'), (other_mask, 'ignore')):
        assert node == dict(common, on_error='raise' if stop else then)
    assert second == other


def test_workers_that_are_not_there(monkeypatch):
    monkeypatch.setattr(utils, 'DEVICE', 'cuda')
    loader = dict(num_workers=0, persistent_workers=True, pin_memory=True)
    cfg = Config(dict(train_dataloader=loader))
    changes.workers(cfg, Flags())
    assert cfg.train_dataloader == dict(loader, persistent_workers=False)
    monkeypatch.setattr(utils, 'DEVICE', 'cpu')
    changes.workers(cfg, Flags())
    assert cfg.train_dataloader.pin_memory is False


def test_changes_of_single_flags(tmp_path, monkeypatch):
    for name in ('HOME', 'USERPROFILE'):
        monkeypatch.setenv(name, str(tmp_path))
    hook = dict(type='mobileone_mm.PredictionSamplesHook', num=3)
    backend = dict(type='TensorboardVisBackend')
    visualizer = dict(type='Visualizer', vis_backends=[backend])
    cfg = Config(
        dict(visualizer=visualizer, custom_hooks=[hook], auto_scale_lr=dict(base_batch_size=64))
    )
    flags = Flags(work_dir='~/run', tensorboard=True, auto_scale_lr=True)
    for change in (changes.work_dir, changes.tensorboard, changes.auto_scale_lr):
        change(cfg, flags)
    assert cfg.work_dir == str(tmp_path / 'run')
    assert cfg.visualizer.vis_backends == [backend]  # only what is missing is added
    assert cfg.custom_hooks == [hook, dict(type='mobileone_mm.ScheduleLogHook')]
    assert cfg.auto_scale_lr.enable is True
    with pytest.raises(InputError, match='--auto-scale-lr'):
        changes.auto_scale_lr(Config(dict()), flags)


@pytest.mark.parametrize(
    ('cfg', 'flags', 'hook'),
    [
        (dict(), {}, None),
        (dict(load_from='a'), {}, dict(whole=False)),
        (dict(load_from='a', resume=True), {}, dict(whole=True)),
        (dict(load_from='a', resume=False), dict(checkpoint='a'), dict(whole=True)),
    ],
)
def test_checks_of_the_checkpoint(cfg, flags, hook):
    """The hook of an earlier run, which a dumped config has, is replaced."""
    kind = 'mobileone_mm.CheckpointCheckHook'
    other = dict(type='EMAHook')
    given = Config(dict(cfg, model={}, custom_hooks=[dict(type=kind, whole=0), other]))
    changes.checks(given, Flags(**flags))
    assert given.custom_hooks == [other, *([dict(hook, type=kind)] if hook else [])]
