"""The hooks below DDP: two processes on the CPU, as torchrun starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
DUMP = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class DumpRank(Hook):
    def after_train(self, runner):
        model = runner.model.module
        torch.save(model.state_dict(), f'{runner.work_dir}/rank_{runner.rank}.pt')
        assert type(runner.model).__name__ == 'MMDistributedDataParallel'
"""
LINES = """
custom_imports = dict(imports=['mobileone_mm', 'dump_rank'], allow_failed_imports=False)
train_dataloader.update(batch_size=2)
train_cfg = dict(max_epochs=2)
"""
EMA = "dict(type='mmengine.EMAHook', momentum=0.3, update_buffers=True), dict(type='DumpRank'), "
HOOKS = (
    "dict(type='mobileone_mm.DeployEvalHook', verify='always'), "
    "dict(type='mobileone_mm.BestDeployHook')"
)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train in two processes and return the states of both, and the log."""
    (tmp_path / 'dump_rank.py').write_text(DUMP)
    monkeypatch.syspath_prepend(tmp_path)  # the pair's config imports it, too

    def run(config, name):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
        command += ['--master_addr=127.0.0.1', f'--master_port={port}']
        command += [ROOT / 'tools' / 'train.py', config, '--work-dir', tmp_path / name]
        environment = {k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'}
        environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), str(tmp_path)])
        result = subprocess.run(
            [*map(str, command), '--launcher', 'pytorch'],
            env={**environment, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return [torch.load(tmp_path / name / f'rank_{rank}.pt') for rank in (0, 1)], result.stdout

    return run


def test_validation_and_pair(train, tiny_config, tool, tmp_path):
    """Proved below DDP; one pair, which has the metric of the log."""
    _, log = train(tiny_config('cls', f'{LINES}custom_hooks = [{EMA}{HOOKS}]\n'), 'run')
    assert log.count('Deploy form proved: units differ by at most') == 2
    best = read_checkpoint(next((tmp_path / 'run').glob('best_*[0-9].pth')))
    assert form_of(best['state_dict']) == form_of(best['ema_state_dict']) == 'train'
    pairs = list((tmp_path / 'run').glob('best_*_deploy.pth'))
    assert len(pairs) == 1
    out = tmp_path / 'metrics.json'
    arguments = ('test', pairs[0].with_suffix('.py'), pairs[0], '--work-dir', tmp_path / 'test')
    assert tool(*arguments, '--out', out) == 0
    scalars = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    logged = [row for row in map(json.loads, scalars) if 'accuracy/top1' in row]
    wanted = max(row['accuracy/top1'] for row in logged)
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_training_is_the_same_bit_by_bit(train, tiny_config):
    (plain, _), (hooked, _) = (
        train(tiny_config('cls', f'{LINES}custom_hooks = [{EMA}{hooks}]\n', name), name)
        for name, hooks in (('plain', ''), ('hooked', HOOKS))
    )
    for a, b in zip(plain, hooked, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_fine_tuning_a_deploy_form(train, tiny_config, tmp_path):
    """Both processes end with the same kernels, which have moved; frozen ones have not."""
    backbone = "model['backbone'].update(deploy=True, frozen_stages=1)"
    config = tiny_config('cls', f'{LINES}custom_hooks = [{EMA}]\n{backbone}\n')
    (first, second), _ = train(config, 'tuned')
    # Where mmengine keeps the raw weights of a run with EMA.
    start = read_checkpoint(tmp_path / 'tuned' / 'epoch_1.pth')['ema_state_dict']
    assert any('branch_reparam' in key for key in first)
    assert not any('branch_conv_list' in key for key in first)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        if 'branch_reparam' in key:
            still = key.startswith(('backbone.stage0.', 'backbone.stage1.'))
            assert torch.equal(value, start[f'module.{key}']) == still, key
