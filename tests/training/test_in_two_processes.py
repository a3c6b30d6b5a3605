"""Two processes on the CPU, or two batches before each step, train like one process."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from helpers import ROOT, python, scalars
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import assert_same, metrics_of

HERE = Path(__file__).parent
# Nothing random in the images: the crop is the whole image.
LINES = """
custom_imports = dict(imports=['mobileone_mm', 'two_processes'])
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
def modules(monkeypatch):
    """The folder of the module that the configs import, the deploy pair's too."""
    monkeypatch.syspath_prepend(HERE)
    return (HERE,)


@pytest.fixture
def train_two(tiny_config, torchrun, tmp_path, modules):
    """Train in two processes, each with half of every batch; return the work dir and the log."""

    def run(lines, name='two'):
        options = ('--work-dir', tmp_path / name, '--cfg-options', 'train_dataloader.batch_size=2')
        result = torchrun('train', tiny_config('cls', lines), *options, path=modules)
        return tmp_path / name, result.stdout + result.stderr

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


def test_two_processes(train, train_two, tool, tmp_path):
    """Weights, averages and shared BN statistics through three phases; the deploy form below DDP."""
    one = train('cls', LINES.format(backbone=SYNC_BN, hooks=''), name='one')
    two, log = train_two(LINES.format(backbone=SYNC_BN, hooks=HOOKS))
    assert 'Curriculum: phase 3 of 3 from epoch 3: 64 px' in log
    for start, *pair in zip(weights(one, 1), weights(one), weights(two), strict=True):
        assert_equal_training(start, *pair)
        moved = 'backbone.stage1.0.branch_scale.norm.running_mean'
        assert not torch.allclose(pair[0][moved], start[moved], atol=1e-3)
    assert_same(*ranks(two))

    # The validation is proved, and the one pair has the metric of the log.
    assert log.count('Deploy form proved: units differ by at most') == 3
    best = read_checkpoint(next(two.glob('best_*[0-9].pth')))
    assert form_of(best['state_dict']) == form_of(best['ema_state_dict']) == 'train'
    (pair,) = two.glob('best_*_deploy.pth')
    wanted = max(row['accuracy/top1'] for row in scalars(two) if 'accuracy/top1' in row)
    found = metrics_of(tool, pair.with_suffix('.py'), pair, tmp_path)['accuracy/top1']
    assert found == pytest.approx(wanted, abs=1e-4)


def test_fine_tuning_a_deploy_form(train_two):
    """Both processes end with the same kernels, which have moved; frozen ones have not."""
    tuned, _ = train_two(LINES.format(backbone='deploy=True, frozen_stages=1', hooks=''))
    first, second = ranks(tuned)
    assert_same(first, second)
    start = weights(tuned, 1)[0]
    kernels = [key for key in first if 'branch_reparam' in key]
    assert kernels
    assert not any('branch_conv_list' in key for key in first)
    for key in kernels:
        still = key.startswith(('backbone.stage0.', 'backbone.stage1.'))
        assert torch.equal(first[key].double(), start[key]) == still, key


@pytest.mark.slow
def test_training_is_the_same_bit_by_bit(train_two):
    """With and without the hooks; BN has the statistics of each process."""
    plain, _ = train_two(LINES.format(backbone='', hooks=''), 'plain')
    hooked, _ = train_two(LINES.format(backbone='', hooks=HOOKS), 'hooked')
    assert_same(ranks(hooked), ranks(plain))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('loss', 'said', 'absent'),
    [(True, 'loss is NaN in iteration 3 (epoch 3)', 3), (False, 'NaN or Inf in', 2)],
)
def test_both_processes_end_if_one_diverges(loss, said, absent, tiny_config, modules, tmp_path):
    """Without torchrun, which would end the other one."""
    hook = f"dict(type='Diverge', rank=1, loss={loss})"
    config = tiny_config('cls', LINES.format(backbone='', hooks=hook))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        group = dict(
            MASTER_ADDR='127.0.0.1', MASTER_PORT=str(probe.getsockname()[1]), WORLD_SIZE='2'
        )
    run = (ROOT / 'tools' / 'train.py', config, '--work-dir', tmp_path / 'two', '--no-validate')

    def one(rank: str):
        env = {**group, 'RANK': rank, 'LOCAL_RANK': rank}
        return python(*run, '--launcher', 'pytorch', path=modules, env=env, fails=True)

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(one, '01')
    assert first.returncode == second.returncode == 2
    assert said in first.stderr.splitlines()[-1]
    assert not list((tmp_path / 'two').glob(f'epoch_{absent}.pth'))


def test_accumulation(train, modules):
    """Two batches of two before each step; a schedule by iteration would move between them."""
    lines = LINES.format(backbone='norm_eval=True', hooks='') + 'param_scheduler = None\n'
    whole = train('cls', lines, name='whole')
    halves = ('train_dataloader.batch_size=2', 'optim_wrapper.accumulative_counts=2')
    other = train('cls', lines, '--cfg-options', *halves)
    assert_equal_training(weights(whole, 1)[0], weights(whole)[0], weights(other)[0])
