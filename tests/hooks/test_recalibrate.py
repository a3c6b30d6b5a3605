"""Statistics of lifted branches: measured, and the function stays what it was."""

import copy
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.hooks import EMAHook
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from helpers import randomize_
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.recalibrate import (
    RecalibrateHook,
    _separate_loader,
    recalibrate,
    training_jump,
)
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.reparam.compare import max_difference
from mobileone_mm.weights.forms import fuse_state, lift_state
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import assert_same, log_of


def lifted():
    """A net whose weights were lifted from fused ones, in float64, and the fused one."""
    fused = reparameterize_model(randomize_(MobileOne('mu0')).double().eval())
    model = MobileOne('mu0').double()
    model.load_state_dict(lift_state(fused.state_dict(), model.state_dict()))
    return model, fused


def test_function_stays_and_training_mode_follows_it():
    model, fused = lifted()
    batch = torch.rand(8, 3, 64, 64, dtype=torch.float64)
    model.train()
    before = training_jump(model, batch)
    assert recalibrate(model, [batch]) == len(
        [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    )
    assert model.training
    assert model.stage1[0].branch_scale.norm.training
    after = training_jump(model, batch)
    assert before > 0.5
    # What is left is the last stage: 2 x 2 cells of 8 images, whose variance BN takes without the
    # factor n / (n - 1) that the running variance has.
    assert after < 0.05 < before
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    assert max_difference(fused(x), model.eval()(x))[1] < 1e-11


def test_statistics_are_those_of_the_data():
    model, _ = lifted()
    batches = [torch.rand(2, 3, 64, 64, dtype=torch.float64) for _ in range(3)]
    recalibrate(model, batches)
    conv, norm = model.stage0.branch_conv_list[0]
    out = torch.cat([conv(batch) for batch in batches])
    torch.testing.assert_close(norm.running_mean, out.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, out.var((0, 2, 3)))


def test_jump_changes_nothing():
    model, _ = lifted()
    model.train()
    model.stage1.eval()
    state = copy.deepcopy(model.state_dict())
    batch = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    random_state = torch.get_rng_state()
    training_jump(model, batch)
    assert_same(model.state_dict(), state)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert not model.stage1.training
    assert all(n.momentum == 0.1 for n in model.modules() if isinstance(n, torch.nn.BatchNorm2d))


def test_runs_that_are_left_alone():
    """A resumed run, and a model in deploy form; a model without units is an error."""
    hook, lines = RecalibrateHook(), []
    hook.before_train(SimpleNamespace(_resume=True))
    runner = SimpleNamespace(_resume=False, logger=SimpleNamespace(info=lines.append))
    runner.model = MobileOneBlock(4, 4, 3, deploy=True)
    hook.before_train(runner)
    assert lines == ['The model is in deploy form and has no BN statistics to measure.']
    runner.model = torch.nn.Conv2d(4, 4, 3)
    with pytest.raises(InputError, match='RecalibrateHook expects a MobileOne'):
        hook.before_train(runner)


def test_what_a_run_measures_on():
    """Batches as in training mode: the first, for the differences, and then num_batches of them.

    The sampler of the run is not used: an endless one would lose the batches.
    """
    model, modes, lines = torch.nn.Module(), [], []
    model.block = model.extract_feat = MobileOneBlock(3, 4, 3)
    model.data_preprocessor = lambda data, training: modes.append(training) or dict(inputs=data)
    images = torch.rand(6, 3, 8, 8) + 5
    average = SimpleNamespace(module=MobileOneBlock(3, 4, 3))
    average.module.load_state_dict = lambda state: lines.append(list(state))
    ema = EMAHook()
    ema.ema_model = average
    runner = SimpleNamespace(_resume=False, model=model, seed=0, hooks=[ema])
    runner.train_dataloader = DataLoader(images, 2, sampler=Mock())
    runner.logger = SimpleNamespace(info=lines.append)
    RecalibrateHook(2).before_train(runner)
    assert modes == [True] * 3
    assert lines[0].startswith('Measured the statistics of 2 BN layers on 2 batches.')
    assert lines[1] == list(model.state_dict())
    RecalibrateHook().before_train(runner)
    assert 'BN layers on 3 batches' in lines[2]


def test_the_separate_loader():
    """The data, batch size and workers of the run, in an order and with seeds of its own."""
    data = list(range(10))
    loader = DataLoader(data, 4, num_workers=2, collate_fn=list, worker_init_fn=print)
    other = _separate_loader(loader, 3)
    assert (other.batch_size, other.num_workers, other.drop_last) == (4, 2, True)
    assert (other.collate_fn, other.worker_init_fn) == (list, print)
    assert sorted(other.sampler) == data != list(other.sampler)
    assert list(other.sampler) != list(_separate_loader(loader, 4).sampler)
    assert not _separate_loader(DataLoader(data, 10), 0).drop_last
    sampler = BatchSampler(SequentialSampler(data), 5, drop_last=False)
    assert _separate_loader(DataLoader(data, batch_sampler=sampler), 0).batch_size == 5


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_large_mean_keeps_its_small_variance(dtype):
    """Mean 1000, standard deviation 0.1: float32 sums of squares would lose the variance."""
    block = MobileOneBlock(4, 4, 1, with_identity=True).train()
    scale = 0.1 if dtype is torch.float32 else 8.0  # bfloat16 has a step of 4 at 1000
    batches = [(1000 + scale * torch.randn(8, 4, 16, 16)).to(dtype) for _ in range(3)]
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype is torch.bfloat16):
        assert recalibrate(block, batches) == 2
    values = torch.cat(batches).double()
    torch.testing.assert_close(
        block.branch_norm.running_var.double(), values.var((0, 2, 3)), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        block.branch_norm.running_mean.double(), values.mean((0, 2, 3)), rtol=1e-6, atol=0
    )


def test_what_is_not_measured():
    """A deploy form, frozen BN, BN without scale or statistics, BN with one value per channel."""
    assert recalibrate(MobileOne('mu0', deploy=True), [torch.rand(2, 3, 32, 32)]) == 0
    block = MobileOneBlock(4, 4, 3, num_convs=4, with_identity=True)
    frozen = block.branch_conv_list[0].norm.requires_grad_(False)
    block.branch_conv_list[1].norm = plain = torch.nn.BatchNorm2d(4, affine=False)
    assert recalibrate(block, [torch.rand(1, 4, 1, 1)]) == 0
    block.branch_conv_list[2].norm = untracked = torch.nn.BatchNorm2d(4, track_running_stats=False)
    assert recalibrate(block, [torch.rand(1, 4, 2, 1)]) == 3
    for norm in (frozen, plain):
        assert torch.equal(norm.running_var, torch.ones(4))
    assert untracked.running_var is None
    assert not block.branch_norm._forward_pre_hooks


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_in_a_run(task, trained, train, tmp_path):
    """From fused weights: the log has the measurement, and EMA the same weights."""
    _, checkpoint = trained(task)
    content = read_checkpoint(checkpoint)
    torch.save(dict(state_dict=fuse_state(content['state_dict'])), tmp_path / 'deploy.pth')
    extra = """
custom_hooks = [
    dict(type='EMAHook', momentum=1e-9, update_buffers=True),
    dict(type='mobileone_mm.RecalibrateHook', num_batches=1),
]
optim_wrapper = dict(optimizer=dict(lr=1e-9, weight_decay=0.0))
param_scheduler = None
"""
    run = train(task, extra, '--cfg-options', f'load_from={tmp_path / "deploy.pth"}')
    log = log_of(run)
    assert 'is in deploy form; its units' in log
    assert 'BN layers on 1 batches' in log
    saved = read_checkpoint(run / 'epoch_1.pth')
    averaged, raw = saved['state_dict'], saved['ema_state_dict']
    key = 'backbone.stage1.0.branch_scale.norm.weight'
    torch.testing.assert_close(averaged[key], raw[f'module.{key}'], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(averaged[key], torch.ones(()))
