"""Fusing and lifting of state dicts, in float64 with random weights and random statistics."""

import pytest
import torch

from helpers import randomize_
from mobileone_mm import MobileOne, load_weights, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.reparam.compare import max_difference
from mobileone_mm.weights.forms import _as_stored, fuse_state, lift_state

WITH_SE = dict(
    num_blocks=[1, 2, 3, 1],
    width_factor=[0.25, 0.25, 0.25, 0.5],
    num_conv_branches=[1, 4, 2, 1],
    num_se_blocks=[0, 1, 2, 1],
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
    own = {key.removeprefix('backbone.'): v for key, v in lifted.items() if 'head' not in key}
    twin = MobileOne(arch, in_channels=5, **lacking).double().eval()
    twin.load_state_dict(own, strict=True)
    x = torch.rand(2, 5, 64, 64, dtype=torch.float64)
    assert max_difference(deployed(x), twin(x))[1] < 1e-12
    again = fuse_state(lifted)
    for key, value in expected.items():
        torch.testing.assert_close(again[key], value.to(again[key].dtype), rtol=0, atol=1e-13)


def test_eps_of_the_model_counts():
    model = random_net('mu0', norm_cfg=dict(type='BN', eps=1e-3))
    expected = reparameterize_model(model).state_dict()
    key = 'stage1.0.branch_reparam.weight'
    torch.testing.assert_close(fuse_state(model.state_dict(), 1e-3)[key], expected[key])
    assert not torch.allclose(fuse_state(model.state_dict())[key], expected[key], rtol=1e-6)
    lifted = lift_state(expected, model.state_dict(), 1e-3)
    torch.testing.assert_close(fuse_state(lifted, 1e-3)[key], expected[key])


def test_several_networks_in_one_state():
    models = {f'{place}.backbone.': random_net(WITH_SE) for place in ('student', 'teacher')}
    state = {p + k: v for p, model in models.items() for k, v in model.state_dict().items()}
    fused = fuse_state(state)
    for place, model in models.items():
        for key, value in reparameterize_model(model).state_dict().items():
            torch.testing.assert_close(fused[place + key], value, rtol=0, atol=1e-13)
    for key in ('teacher.backbone.stage0.branch_conv_list.0.conv.weight',
                'teacher.backbone.stage2.1.branch_conv_list.0.norm.running_var'):  # fmt: skip
        with pytest.raises(InputError, match=f"lacks '{key}'"):
            fuse_state({k: v for k, v in state.items() if k != key})


def test_lifted_branches_are_all_in_use_and_differ():
    model = random_net(WITH_SE)
    lifted = lift_state(reparameterize_model(model).state_dict(), model.state_dict())
    kernels = [lifted[f'stage2.2.branch_conv_list.{j}.conv.weight'] for j in range(4)]
    assert all(not torch.allclose(kernels[0], other, rtol=1e-3) for other in kernels[1:])
    for part in ('scale.conv', 'norm'):
        assert (lifted[f'stage2.2.branch_{part}.weight'].abs() > 0).all()
    counter = lifted['stage2.2.branch_norm.num_batches_tracked']
    assert (counter.dtype, counter.item()) == (torch.int64, 0)


def test_fused_and_lifted_tensors_are_stored_at_least_in_float32():
    for like, stored in ((16, 32), (32, 32), (64, 64)):
        like, stored = (torch.ones(1, dtype=getattr(torch, f'float{n}')) for n in (like, stored))
        assert _as_stored(like.double(), like).dtype == stored.dtype


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


def test_dead_channels_fuse_and_lift():
    """A channel whose input was always 0 has variance 0; eps alone scales it."""
    model = random_net('mu0')
    for key, value in model.state_dict().items():
        if key.endswith(('running_var', 'running_mean')):
            value[::3] = 0
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    deployed = MobileOne('mu0', deploy=True).double().eval()
    load_weights(deployed, model.state_dict())
    assert max_difference(model(x), deployed(x))[1] <= 1e-10
    lifted = MobileOne('mu0').double().eval()
    load_weights(lifted, deployed.state_dict())
    assert max_difference(model(x), lifted(x))[1] <= 1e-10
