"""Two processes, or two batches before each step, train like one process with twice the batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mobileone_mm.weights.reading import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
HERE = str(Path(__file__).parent)

# Nothing random in the images: the crop is the whole image. BN keeps its statistics, since two
# halves of a batch have other ones, and torch has no SyncBN for the CPU.
LINES = """
model['backbone'].update(norm_eval=True)
train_dataloader.update(batch_size=4, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(1.0, 1.0),
         aspect_ratio_range=(1.0, 1.0)),
    dict(type='PackInputs'),
]))
custom_hooks = [
    dict(type='mmengine.EMAHook', momentum=0.3),
    dict(type='mobileone_mm.CurriculumHook', phases=[
        dict(begin=0, resolution=32), dict(begin=1, resolution=48), dict(begin=2, resolution=64)]),
]
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = None
train_cfg = dict(max_epochs=3)
default_hooks = dict(checkpoint=dict(save_best=None))
"""
SCHEDULES = """
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=1e-6, convert_to_iter_based=True),
    dict(type='CosineAnnealingWeightDecay', eta_min_ratio=0.1, convert_to_iter_based=True),
]
"""


def raw(folder):
    """The trained weights, not their average, after six steps of the optimizer."""
    content = read_checkpoint(folder / 'epoch_3.pth')
    prefix = 'module.'
    return {
        key.removeprefix(prefix): value.double()
        for key, value in content['ema_state_dict'].items()
        if key.startswith(prefix)
    }, {key: value.double() for key, value in content['state_dict'].items()}


def assert_equal_training(start, one, other):
    """Check that differences are float32 rounding errors, compared with the change of the weights."""
    assert one.keys() == other.keys()
    way = max(float((one[key] - start[key]).abs().max()) for key in one)
    apart = max(float((one[key] - other[key]).abs().max()) for key in one)
    assert way > 1e-2
    assert apart < 1e-4 * way, (apart, way)


@pytest.fixture
def start(tiny_config, tool, tmp_path):
    """The weights of the first iteration: a run that learns nothing."""
    config = tiny_config('cls', f'{LINES}optim_wrapper.update(optimizer=dict(lr=0.0))\n', 'start')
    assert tool('train', config, '--work-dir', tmp_path / 'start', '--no-validate') == 0
    return raw(tmp_path / 'start')[0]


def train_in_two(config, work_dir):
    """The same run in two processes, each with half of every batch; its output."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    command += ['--master_addr=127.0.0.1', f'--master_port={port}', ROOT / 'tools' / 'train.py']
    command += [config, '--work-dir', work_dir, '--no-validate', '--launcher', 'pytorch']
    result = subprocess.run(
        [*map(str, command), '--cfg-options', 'train_dataloader.batch_size=2'],
        env={**{k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'},
             'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}{os.pathsep}{HERE}'},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def test_two_processes(start, tiny_config, tool, tmp_path):
    """With schedules by iteration, weights and average alike, through all three phases."""
    config = tiny_config('cls', LINES + SCHEDULES)
    assert tool('train', config, '--work-dir', tmp_path / 'one', '--no-validate') == 0
    assert 'Curriculum: phase 3 of 3 from epoch 3: 64 px' in train_in_two(config, tmp_path / 'two')
    for one, two in zip(raw(tmp_path / 'one'), raw(tmp_path / 'two'), strict=True):
        assert_equal_training(start, one, two)


def test_two_processes_that_share_their_statistics(start, tiny_config, tool, tmp_path, monkeypatch):
    """BN learns as well: its batches are those of both processes, as with SyncBN on GPUs."""
    monkeypatch.syspath_prepend(HERE)
    config = tiny_config(
        'cls',
        LINES.replace('norm_eval=True', "norm_cfg=dict(type='mmengine.GlooSyncBN')")
        + "custom_imports = dict(imports=['mobileone_mm', 'gloo_sync_bn'])\n"
        + SCHEDULES,
    )
    assert tool('train', config, '--work-dir', tmp_path / 'one', '--no-validate') == 0
    train_in_two(config, tmp_path / 'two')
    one, two = raw(tmp_path / 'one'), raw(tmp_path / 'two')
    for pair in zip(one, two, strict=True):
        assert_equal_training(start, *pair)
    moved = 'backbone.stage1.0.branch_scale.norm.running_mean'
    assert not torch.allclose(one[0][moved], start[moved], atol=1e-3)


def test_accumulation(start, tiny_config, tool, tmp_path):
    """Two batches of two before each step; a schedule by iteration would move between them."""
    config = tiny_config('cls', LINES)
    halves = ('train_dataloader.batch_size=2', 'optim_wrapper.accumulative_counts=2')
    for name, options in (('whole', ('log_level=INFO',)), ('halves', halves)):
        arguments = ('--work-dir', tmp_path / name, '--no-validate', '--cfg-options', *options)
        assert tool('train', config, *arguments) == 0
    whole, halves = (raw(tmp_path / name)[0] for name in ('whole', 'halves'))
    assert_equal_training(start, whole, halves)
    # Without accumulation they would not be equal.
    assert not torch.allclose(start['head.fc.weight'], whole['head.fc.weight'], atol=1e-3)
