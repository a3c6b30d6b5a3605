"""Fusing and lifting of state dicts, in float64 with random weights and random statistics."""

import pytest
import torch

from helpers import SMALL, randomize_
from mobileone_mm import MobileOne, load_weights, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.reparam.compare import max_difference
from mobileone_mm.weights.forms import fuse_state, lift_state

WITH_SE = dict(
    SMALL, num_blocks=[1, 2, 3, 1], num_conv_branches=[1, 4, 2, 1], num_se_blocks=[0, 1, 2, 1]
)


def random_net(arch, **kwargs):
    return randomize_(MobileOne(arch, **kwargs)).double().eval()


def prefixed(state, prefix='backbone.'):
    return {prefix + key: value for key, value in state.items()} | {'head.fc.bias': torch.ones(3)}


@pytest.mark.parametrize(
    ('arch', 'lacking'),
    [
        ('s0', {}),
        ('mu0', {}),
        (WITH_SE, {}),
        (WITH_SE, dict(use_scale=False)),
        (WITH_SE, dict(use_identity=False)),
    ],
    ids=['s0', 'mu0', 'se', 'no scale', 'no identity'],
)
def test_states_are_fused_and_lifted_like_models(arch, lacking):
    model = random_net(arch, in_channels=5, **lacking)
    deployed = reparameterize_model(model)
    expected = prefixed(deployed.state_dict())
    fused = fuse_state(prefixed(model.state_dict()))
    assert fused.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(fused[key], value, rtol=0, atol=1e-13)

    lifted = lift_state(expected, prefixed(model.state_dict()))
    counter = lifted['backbone.stage0.branch_conv_list.0.norm.num_batches_tracked']
    assert (counter.dtype, counter.item()) == (torch.int64, 0)
    own = {key.removeprefix('backbone.'): v for key, v in lifted.items() if 'head' not in key}
    twin = MobileOne(arch, in_channels=5, **lacking).double().eval()
    twin.load_state_dict(own, strict=True)
    x = torch.rand(2, 5, 64, 64, dtype=torch.float64)
    assert max_difference(deployed(x), twin(x))[1] < 1e-12
    again = fuse_state(lifted)
    for key, value in expected.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=1e-13)


def test_several_networks_in_one_state():
    models = {f'{place}.backbone.': random_net(WITH_SE) for place in ('student', 'teacher')}
    state = {p + k: v for p, model in models.items() for k, v in model.state_dict().items()}
    fused = fuse_state(state)
    for place, model in models.items():
        for key, value in reparameterize_model(model).state_dict().items():
            torch.testing.assert_close(fused[place + key], value, rtol=0, atol=1e-13)


def test_units_that_the_target_does_not_have_stay():
    fused = reparameterize_model(random_net('mu0')).state_dict()
    assert lift_state(fused, {}).keys() == fused.keys()


@pytest.mark.parametrize(
    'lost',
    [
        'stage2.1.branch_reparam.weight',
        'stage2.1.branch_reparam.bias',  # without it, it is another function, not one with a bias of 0
        'stage2.1.branch_conv_list.0.norm.running_var',
        'stage2.1.branch_conv_list.1.',  # a sum without one of its branches
    ],
)
def test_incomplete_units_are_damage(lost):
    model = random_net('mu0')
    state = (reparameterize_model(model) if 'reparam' in lost else model).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(lost)}
    with pytest.raises(InputError, match=rf"lacks '{lost}"):
        lift_state(state, model.state_dict()) if 'reparam' in lost else fuse_state(state)
    for deploy in (False, True):
        with pytest.raises(InputError, match=rf'lacks|units or branches differ .*{lost}'):
            load_weights(MobileOne('mu0', deploy=deploy), state)
