"""A Runner of a prepared config: its log, its dumped config, and errors of the hosts."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS


def test_log_and_dumped_config_have_the_changes(tiny_config, tool, tmp_path):
    run = ('train', tiny_config('cls'), '--work-dir', tmp_path, '--no-validate')
    assert tool(*run, '--cfg-options', 'changes.broken_files=False') == 0
    dumped = Config.fromfile(tmp_path / 'cls.py')
    assert set(dumped.changes) == {
        'no_validate', 'workers', 'work_dir', 'broken_files', 'faster_transforms',
    }  # fmt: skip
    assert dumped.changes.broken_files is False
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'broken_files       switched off' in log
    assert 'RandomResizedCrop -> mobileone_mm.RandomResizedCrop' in log
    assert log.index('changes.NAME=False') < log.index('Epoch(train)')


def test_a_type_error_of_a_host_in_training_keeps_its_traceback(tiny_config, tool, monkeypatch):
    """Even if it builds something that is not in the config."""

    def forward(self, x):
        MODELS.build(dict(type='mobileone_mm.MobileOne', unknown=1))

    monkeypatch.setattr('mobileone_mm.MobileOne.forward', forward)
    with pytest.raises(TypeError, match='unknown'):
        tool('train', tiny_config('cls'), '--no-validate')
