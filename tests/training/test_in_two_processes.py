"""Two processes on the CPU, or two batches before each step, train like one process."""

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
HERE = Path(__file__).parent
DUMP = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class DumpRank(Hook):
    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        torch.save(model.state_dict(), f'{runner.work_dir}/rank_{runner.rank}.pt')
        expected = 'MMDistributedDataParallel' if runner.world_size > 1 else 'ImageClassifier'
        assert type(runner.model).__name__ == expected
"""
# Nothing random in the images: the crop is the whole image.
LINES = """
custom_imports = dict(imports=['mobileone_mm', 'dump_rank', 'gloo_sync_bn'])
train_dataloader.update(batch_size=4, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(1.0, 1.0),
         aspect_ratio_range=(1.0, 1.0)),
    dict(type='PackInputs'),
]))
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=1e-6, convert_to_iter_based=True),
    dict(type='CosineAnnealingWeightDecay', eta_min_ratio=0.1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=3)
model['backbone'].update({backbone})
custom_hooks = [
    dict(type='mmengine.EMAHook', momentum=0.3, update_buffers=True),
    dict(type='mobileone_mm.CurriculumHook', phases=[
        dict(begin=0, resolution=32), dict(begin=1, resolution=48), dict(begin=2, resolution=64)]),
    dict(type='DumpRank'),
    {hooks}
]
"""
SYNC_BN = "norm_cfg=dict(type='mmengine.GlooSyncBN')"
HOOKS = (
    "dict(type='mobileone_mm.DeployEvalHook', verify='always'), "
    "dict(type='mobileone_mm.BestDeployHook')"
)


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / 'dump_rank.py').write_text(DUMP)
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.syspath_prepend(tmp_path)  # the pair's config imports it, too


@pytest.fixture
def train(tmp_path, modules):
    """Train in two processes, each with half of every batch; return their log."""

    def run(config, name):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
        command += ['--master_addr=127.0.0.1', f'--master_port={port}']
        command += [ROOT / 'tools' / 'train.py', config, '--work-dir', tmp_path / name]
        command += ['--launcher', 'pytorch', '--cfg-options', 'train_dataloader.batch_size=2']
        environment = {k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'}
        environment['PYTHONPATH'] = os.pathsep.join(map(str, (ROOT, HERE, tmp_path)))
        result = subprocess.run(
            [*map(str, command)],
            env={**environment, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout + result.stderr

    return run


def ranks(folder):
    return [torch.load(folder / f'rank_{rank}.pt') for rank in (0, 1)]


def weights(folder, epoch=3):
    """The trained weights and their average."""
    content = read_checkpoint(folder / f'epoch_{epoch}.pth')
    raw = {k[7:]: v for k, v in content['ema_state_dict'].items() if k.startswith('module.')}
    return [{k: v.double() for k, v in state.items()} for state in (raw, content['state_dict'])]


def assert_equal_training(start, one, other):
    """Check that differences are float32 rounding errors, compared with the change of the weights."""
    assert one.keys() == other.keys()
    keys = [key for key in one if not key.endswith('num_batches_tracked')]
    way = max(float((one[key] - start[key]).abs().max()) for key in keys)
    apart = max(float((one[key] - other[key]).abs().max()) for key in keys)
    assert way > 1e-2
    assert apart < 1e-4 * way, (apart, way)


def test_two_processes(train, tiny_config, tool, tmp_path):
    """Weights, averages and shared BN statistics through three phases; the deploy form below DDP."""
    plain = tiny_config('cls', LINES.format(backbone=SYNC_BN, hooks=''), 'plain')
    assert tool('train', plain, '--work-dir', tmp_path / 'one', '--no-validate') == 0
    log = train(tiny_config('cls', LINES.format(backbone=SYNC_BN, hooks=HOOKS)), 'two')
    assert 'Curriculum: phase 3 of 3 from epoch 3: 64 px' in log
    one, two = weights(tmp_path / 'one'), weights(tmp_path / 'two')
    for start, *pair in zip(weights(tmp_path / 'one', 1), one, two, strict=True):
        assert_equal_training(start, *pair)
        moved = 'backbone.stage1.0.branch_scale.norm.running_mean'
        assert not torch.allclose(pair[0][moved], start[moved], atol=1e-3)
    first, second = ranks(tmp_path / 'two')
    assert all(torch.equal(value, second[key]) for key, value in first.items())

    # The validation is proved, and the one pair has the metric of the log.
    assert log.count('Deploy form proved: units differ by at most') == 3
    best = read_checkpoint(next((tmp_path / 'two').glob('best_*[0-9].pth')))
    assert form_of(best['state_dict']) == form_of(best['ema_state_dict']) == 'train'
    (pair,) = (tmp_path / 'two').glob('best_*_deploy.pth')
    out = tmp_path / 'metrics.json'
    arguments = ('test', pair.with_suffix('.py'), pair, '--work-dir', tmp_path / 'test')
    assert tool(*arguments, '--out', out) == 0
    scalars = next((tmp_path / 'two').glob('*/vis_data/scalars.json')).read_text().splitlines()
    logged = [row for row in map(json.loads, scalars) if 'accuracy/top1' in row]
    wanted = max(row['accuracy/top1'] for row in logged)
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(wanted, abs=1e-4)


def test_fine_tuning_a_deploy_form(train, tiny_config, tmp_path):
    """Both processes end with the same kernels, which have moved; frozen ones have not."""
    lines = LINES.format(backbone='deploy=True, frozen_stages=1', hooks='')
    train(tiny_config('cls', lines), 'tuned')
    first, second = ranks(tmp_path / 'tuned')
    start = weights(tmp_path / 'tuned', 1)[0]
    assert any('branch_reparam' in key for key in first)
    assert not any('branch_conv_list' in key for key in first)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        if 'branch_reparam' in key:
            still = key.startswith(('backbone.stage0.', 'backbone.stage1.'))
            assert torch.equal(value.double(), start[key]) == still, key


@pytest.mark.slow
def test_training_is_the_same_bit_by_bit(train, tiny_config, tmp_path):
    """With and without the hooks; BN has the statistics of each process."""
    for name, hooks in (('plain', ''), ('hooked', HOOKS)):
        train(tiny_config('cls', LINES.format(backbone='', hooks=hooks), name), name)
    for a, b in zip(ranks(tmp_path / 'plain'), ranks(tmp_path / 'hooked'), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_accumulation(tiny_config, tool, tmp_path, modules):
    """Two batches of two before each step; a schedule by iteration would move between them."""
    lines = LINES.format(backbone='norm_eval=True', hooks='') + 'param_scheduler = None\n'
    config = tiny_config('cls', lines)
    halves = ('train_dataloader.batch_size=2', 'optim_wrapper.accumulative_counts=2')
    for name, options in (('whole', ('log_level=INFO',)), ('halves', halves)):
        arguments = ('--work-dir', tmp_path / name, '--no-validate', '--cfg-options', *options)
        assert tool('train', config, *arguments) == 0
    start = weights(tmp_path / 'whole', 1)[0]
    assert_equal_training(start, *(weights(tmp_path / name)[0] for name in ('whole', 'halves')))
