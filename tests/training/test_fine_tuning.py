"""A model in deploy form trains like any other: gradients and frozen stages."""

import copy

import pytest
import torch

from helpers import randomize_
from mobileone_mm import MobileOne, reparameterize_model

from .conftest import TINY


def deploy_form(built: bool, **settings) -> MobileOne:
    """Built as such, or fused after it was built; with random weights either way."""
    if built:
        return randomize_(MobileOne(TINY, deploy=True, **settings))
    return reparameterize_model(randomize_(MobileOne(TINY, **settings)).eval()).train()


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
