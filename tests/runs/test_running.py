"""A Runner of a prepared config: its log, its dumped config, and errors of the hosts."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS


def test_log_and_dumped_config_have_the_changes(tiny_config, tool, tmp_path):
    run = ('train', tiny_config('cls'), '--work-dir', tmp_path, '--no-validate')
    assert tool(*run, '--cfg-options', 'changes.broken_files=False') == 0
    dumped = Config.fromfile(tmp_path / 'cls.py')
    assert set(dumped.changes) == {
        'no_validate', 'workers', 'work_dir', 'broken_files', 'image_suffixes',
        'faster_transforms',
    }  # fmt: skip
    assert dumped.changes.broken_files is False
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'broken_files       switched off' in log
    assert 'RandomResizedCrop -> mobileone_mm.RandomResizedCrop' in log
    assert log.index('changes.NAME=False') < log.index('Epoch(train)')


class Faulty(Hook):
    """A hook of a user."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        Path('/no/such.txt').read_text()


class Wrong(Hook):
    """Another one, whose fault is a TypeError."""

    def before_train_epoch(self, runner):
        len(3)


def forward(self, x):
    """Even if it builds something that is not in the config."""
    MODELS.build(dict(type='mobileone_mm.MobileOne', unknown=1))


def test_faults_of_the_program_and_of_the_user_keep_their_traceback(tiny_config, tool, monkeypatch):
    monkeypatch.setitem(HOOKS.module_dict, 'Faulty', Faulty)
    run = ('train', tiny_config('cls'), '--no-validate', '--cfg-options')
    with pytest.raises(FileNotFoundError, match='such'):
        tool(*run, "custom_hooks=[dict(type='Faulty')]")
    monkeypatch.setitem(HOOKS.module_dict, 'Wrong', Wrong)
    with pytest.raises(TypeError, match='has no len') as caught:
        tool(*run, "custom_hooks=[dict(type='Wrong')]")
    assert caught.traceback[-1].name == 'before_train_epoch'
    monkeypatch.setattr('mobileone_mm.MobileOne.forward', forward)
    with pytest.raises(TypeError, match='unknown'):
        tool(*run, 'custom_hooks=[]')
