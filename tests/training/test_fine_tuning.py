"""A model in deploy form trains like any other: gradients, frozen stages, settings per parameter."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from helpers import randomize_
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import losses_of, rates_of

ARCH = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.125] * 4, num_se_blocks=[0, 0, 1, 0])


def deploy_form(built: bool, **settings) -> MobileOne:
    """Built as such, or fused after it was built; with random weights either way."""
    if built:
        return randomize_(MobileOne(ARCH, deploy=True, **settings))
    return reparameterize_model(randomize_(MobileOne(ARCH, **settings)).eval()).train()


@pytest.fixture(params=[True, False], ids=['built', 'fused'])
def built(request) -> bool:
    return request.param


def test_gradients_reach_every_kernel_and_bias(built):
    model = deploy_form(built, out_indices=(0, 1, 2, 3))
    # In float64 and without ReLU: a gradient of zero has no excuse.
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.forward = torch.nn.functional.softplus
    loss = sum(x.square().mean() for x in model.double()(torch.rand(2, 3, 64, 64).double()))
    loss.backward()
    named = dict(model.named_parameters())
    assert sum('branch_reparam' in name for name in named) == 2 * (1 + 2 * 5)
    for name, parameter in named.items():
        assert parameter.requires_grad, name
        assert bool(parameter.grad.abs().max() > 0), name


@pytest.mark.parametrize('frozen', [0, 2, 4])
def test_frozen_stages_stay(built, frozen):
    model = deploy_form(built, frozen_stages=frozen)
    before = copy.deepcopy(model.state_dict())
    still = tuple(f'stage{index}.' for index in range(frozen + 1))
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        n for n, _ in model.named_parameters() if n.startswith(still)
    ]
    if frozen == 4:
        assert not parameters
        return
    optimizer = torch.optim.SGD(parameters, lr=1.0, weight_decay=0.1)
    model.train()
    model(torch.rand(2, 3, 64, 64))[0].square().mean().backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(still), name


def test_settings_per_parameter(built):
    """Decay of kernels, of depthwise kernels and of biases; a rate for a part of the net."""
    model = torch.nn.Module()
    model.backbone = deploy_form(built)
    model.head = torch.nn.Linear(32, 2)
    rules = dict(
        bias_decay_mult=0.0,
        dwconv_decay_mult=0.5,
        custom_keys={'backbone.stage4': dict(lr_mult=0.1)},
    )
    optimizer = dict(type='SGD', lr=0.1, weight_decay=0.01)
    wrapper = build_optim_wrapper(model, dict(optimizer=optimizer, paramwise_cfg=rules))
    named = rates_of(model, wrapper)
    assert named['backbone.stage0.branch_reparam.weight'] == (0.1, 0.01)
    assert named['backbone.stage0.branch_reparam.bias'] == (0.1, 0.0)
    assert named['backbone.stage1.0.branch_reparam.weight'] == (0.1, 0.005)  # depthwise
    assert named['backbone.stage1.1.branch_reparam.weight'] == (0.1, 0.01)
    assert named['backbone.stage4.1.branch_reparam.weight'] == (pytest.approx(0.01), 0.01)
    assert named['head.weight'] == (0.1, 0.01)


def test_training_lowers_the_loss(make_runner, tmp_path):
    """A classifier that is trained with branches for a short time, fused, and trained on, with EMA."""
    settings = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)), kind=Runner)
    branches = make_runner(name='branches', epochs=8, **settings)
    branches.train()
    model = reparameterize_model(branches.model.eval())
    before = copy.deepcopy(model.state_dict())
    ema = dict(type='EMAHook', momentum=0.3)
    make_runner(ema, model=model, epochs=10, name='tuned', **settings).train()
    content = read_checkpoint(tmp_path / 'tuned' / 'epoch_10.pth')
    losses = losses_of(content)
    assert losses[-3:].mean() < 0.5 * losses[:3].mean()
    for name, value in content['state_dict'].items():
        assert not torch.equal(value, before[name]), name
