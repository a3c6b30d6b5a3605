"""Fusing and lifting of state dicts, in float64 with random weights and random statistics."""

from __future__ import annotations

import pytest
import torch

from mobileone_mm import MobileOne, load_weights, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.reparam.algebra import lift_kernel
from mobileone_mm.reparam.compare import max_difference, randomize_
from mobileone_mm.weights.forms import fuse_state, lift_state

SIZES = ['s0', 's1', 's2', 's3', 's4', 'mu0']


def random_net(arch, **kwargs):
    return randomize_(MobileOne(arch, **kwargs)).double().eval()


def prefixed(state, prefix='backbone.'):
    return {prefix + key: value for key, value in state.items()} | {'head.fc.bias': torch.ones(3)}


@pytest.mark.parametrize('arch', SIZES)
def test_fused_state_is_that_of_the_fused_model(arch):
    model = random_net(arch)
    expected = prefixed(reparameterize_model(model).state_dict())
    fused = fuse_state(prefixed(model.state_dict()))
    assert fused.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(fused[key], value, rtol=0, atol=1e-13)


def test_eps_of_the_model_counts():
    model = random_net('mu0', norm_cfg=dict(type='BN', eps=1e-3))
    expected = reparameterize_model(model).state_dict()
    key = 'stage1.0.branch_reparam.weight'
    torch.testing.assert_close(fuse_state(model.state_dict(), 1e-3)[key], expected[key])
    assert not torch.allclose(fuse_state(model.state_dict())[key], expected[key], rtol=1e-6)


@pytest.mark.parametrize('arch', SIZES)
def test_lifted_state_is_the_same_function(arch):
    deployed = reparameterize_model(random_net(arch))
    fused = deployed.state_dict()
    lifted = lift_state(prefixed(fused), prefixed(MobileOne(arch).state_dict()))
    model = MobileOne(arch).double().eval()
    own = {key.removeprefix('backbone.'): v for key, v in lifted.items() if 'head' not in key}
    model.load_state_dict(own, strict=True)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    assert max_difference(deployed(x), model(x))[1] < 1e-12
    again = fuse_state(lifted)
    for key, value in prefixed(fused).items():
        torch.testing.assert_close(again[key], value.to(again[key].dtype), rtol=0, atol=1e-13)


def test_lifted_branches_are_all_in_use_and_differ():
    model = MobileOne('s0')
    lifted = lift_state(reparameterize_model(random_net('s0')).state_dict(), model.state_dict())
    kernels = [lifted[f'stage1.2.branch_conv_list.{j}.conv.weight'] for j in range(4)]
    assert all(not torch.allclose(kernels[0], other, rtol=1e-3) for other in kernels[1:])
    for part in ('scale.conv', 'norm'):
        assert (lifted[f'stage1.2.branch_{part}.weight'].abs() > 0).all()


def test_units_that_the_target_does_not_have_stay():
    fused = reparameterize_model(random_net('mu0')).state_dict()
    lifted = lift_state(fused, {})
    assert lifted.keys() == fused.keys()


def test_incomplete_units_are_named():
    state = random_net('mu0').state_dict()
    del state['stage2.1.branch_conv_list.0.norm.running_var']
    with pytest.raises(InputError, match=r"'stage2\.1' cannot be fused"):
        fuse_state(state)


@pytest.mark.parametrize('part', ['weight', 'bias'])
def test_a_fused_unit_without_a_part_is_damage(part):
    """A kernel without its bias is another function, not a kernel with a bias of 0."""
    state = reparameterize_model(random_net('mu0')).state_dict()
    del state[f'stage2.1.branch_reparam.{part}']
    with pytest.raises(InputError, match=rf"lacks 'stage2\.1\.branch_reparam\.{part}'"):
        lift_state(state, MobileOne('mu0').state_dict())
    for deploy in (False, True):
        with pytest.raises(InputError, match='lacks|units or branches differ'):
            load_weights(MobileOne('mu0', deploy=deploy), state)


def test_a_unit_that_lacks_a_whole_branch_is_not_fused():
    """Its sum without the branch is another function."""
    state = random_net('mu0').state_dict()
    lost = 'stage2.1.branch_conv_list.1.'
    state = {key: value for key, value in state.items() if not key.startswith(lost)}
    for deploy in (False, True):
        with pytest.raises(InputError, match=rf'{lost}'):
            load_weights(MobileOne('mu0', deploy=deploy), state)


def test_dead_channels_fuse_and_lift():
    """A channel whose input was always 0 has variance 0; eps alone scales it."""
    model = random_net('mu0')
    for key, value in model.state_dict().items():
        if key.endswith('running_var'):
            value[::3] = 0
        if key.endswith('running_mean'):
            value[::3] = 0
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    deployed = MobileOne('mu0', deploy=True).double().eval()
    load_weights(deployed, model.state_dict())
    scale, difference = model(x)[0].abs().max(), (model(x)[0] - deployed(x)[0]).abs().max()
    assert difference <= 1e-10 * scale
    lifted = MobileOne('mu0').double().eval()
    load_weights(lifted, deployed.state_dict())
    assert (model(x)[0] - lifted(x)[0]).abs().max() <= 1e-10 * scale


@pytest.mark.parametrize('kinds', [['scale'], ['conv', 'skip'], []])
def test_kinds(kinds):
    with pytest.raises(ValueError, match='kinds: got'):
        lift_kernel(torch.rand(4, 1, 3, 3), torch.rand(4), kinds, 1e-5)
