"""The backbone: sizes, outputs, strides and dilation, freezing, checkpointing, arguments."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers import randomize_
from mobileone_mm import MobileOne, NearIdentityInit, reparameterize_model
from mobileone_mm.models import ARCHS, MobileOneBlock, get_arch
from mobileone_mm.models.block import SqueezeExcite
from mobileone_mm.reparam.compare import max_difference

TINY = dict(num_blocks=[1, 2, 2, 1], width_factor=[0.25, 0.25, 0.125, 0.125])
ALL = ('stem', 0, 1, 2, 3)


def tiny(**changes):
    return dict(arch=dict(TINY, **changes))


def test_s4_has_twelve_se_modules_that_an_argument_removes():
    with torch.device('meta'):
        with_se, without = MobileOne('s4'), MobileOne('s4', use_se=False)
    gates = [n for n, m in with_se.named_modules() if isinstance(m, SqueezeExcite)]
    assert gates == [f'stage3.{i}.se' for i in range(10, 20)] + ['stage4.0.se', 'stage4.1.se']
    removed = {k for k in with_se.state_dict() if '.se.' in k}
    assert set(without.state_dict()) == set(with_se.state_dict()) - removed


def test_outputs_come_in_the_order_of_out_indices():
    model = randomize_(MobileOne(TINY, out_indices=ALL)).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        everything = model(x)
        shuffled = MobileOne(TINY, out_indices=(3, 'stem', -3)).eval()
        shuffled.load_state_dict(model.state_dict())
        some = shuffled(x)
    assert [tuple(o.shape[2:]) for o in everything] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert model.out_channels == tuple(o.shape[1] for o in everything)
    assert isinstance(some, tuple)
    assert all(torch.equal(a, everything[i]) for a, i in zip(some, (4, 0, 2), strict=True))
    assert shuffled.out_channels == (64, 16, 32)
    assert shuffled.out_strides == (32, 2, 8)
    assert MobileOne(TINY, out_indices=2).out_indices == (2,)
    assert MobileOne(TINY, out_indices='stem').out_indices == ('stem',)
    assert MobileOne(TINY, out_indices=list(np.arange(-4, 0))).out_indices == (0, 1, 2, 3)


def hand_built(model, x):
    """The net again from bare functions, dilation given to each convolution by hand."""

    def unit(block, x):
        def norm(n, y):
            return F.batch_norm(y, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps)

        def conv(w, d):
            d = d if w.shape[-1] > 1 else 1
            return F.conv2d(x, w, None, block.stride, w.shape[-1] // 2 * d, d, block.groups)

        dilation = block.expected_dilation
        y = sum(norm(b.norm, conv(b.conv.weight, dilation)) for b in block.branch_conv_list)
        if block.branch_scale is not None:
            y = y + norm(block.branch_scale.norm, conv(block.branch_scale.conv.weight, 1))
        if block.branch_norm is not None:
            y = y + norm(block.branch_norm, x)
        return y.clamp(min=0)

    outputs = []
    for stage in model.stages:
        for block in [stage] if isinstance(stage, MobileOneBlock) else stage:
            x = unit(block, x)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize(
    ('output_stride', 'dilations', 'sizes'),
    [
        (32, (1, 1, 1, 1), [24, 12, 6, 3, 2]),
        (16, (1, 1, 1, 2), [24, 12, 6, 3, 3]),
        (8, (1, 1, 2, 4), [24, 12, 6, 6, 6]),
    ],
)
def test_dilation_reaches_every_branch_and_the_fused_form(output_stride, dilations, sizes):
    options = dict(arch=dict(TINY, num_conv_branches=[2] * 4), out_indices=ALL)
    model = randomize_(MobileOne(**options, output_stride=output_stride), 1).double().eval()
    model.stage0.expected_dilation = 1
    for stage, dilation in zip(model.stages[1:], dilations, strict=True):
        for block in stage:
            block.expected_dilation = dilation
    x = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        expected = hand_built(model, x)
        assert [o.shape[-1] for o in expected] == sizes
        assert max_difference(expected, model(x))[1] < 1e-12
        explicit = MobileOne(**options, strides=model.strides, dilations=dilations)
        explicit.load_state_dict(model.state_dict())
        assert max_difference(expected, explicit.double().eval()(x))[1] < 1e-12
        model.switch_to_deploy()
        assert model.deploy
        assert max_difference(expected, model(x))[1] < 1e-12


@pytest.mark.parametrize('size', [(64, 96), (75, 61)])
@pytest.mark.parametrize(('output_stride', 'step'), [(16, 2), (8, 4)])
def test_contracted_dilation_is_the_strided_net_at_more_positions(output_stride, step, size):
    strided = randomize_(MobileOne(TINY, out_indices=ALL), 2).double().eval()
    dense = MobileOne(TINY, out_indices=ALL, output_stride=output_stride, contract_dilation=True)
    dense = dense.double().eval()
    dense.load_state_dict(strided.state_dict())
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(strided(x), dense(x), strict=True):
            every = 1 if a.shape == b.shape else (b.shape[-1] + 1) // a.shape[-1]
            assert max_difference(a, b[..., ::every, ::every])[1] < 1e-12
        assert dense(x)[-1][..., ::step, ::step].shape == strided(x)[-1].shape


def test_defaults_and_what_reaches_the_units():
    def settings(**options):
        blocks = [m for m in MobileOne(TINY, **options).modules() if isinstance(m, MobileOneBlock)]
        return {(b.with_cp, type(b.act).__name__, b.norm_eps) for b in blocks}

    assert settings() == {(False, 'ReLU', 1e-5)}
    assert settings(with_cp=True) == {(True, 'ReLU', 1e-5)}
    assert settings(act_cfg=None) == {(False, 'Identity', 1e-5)}
    changed = dict(act_cfg=dict(type='GELU'), norm_cfg=dict(type='BN', eps=0.01))
    assert settings(**changed) == {(False, 'GELU', 0.01)}
    model = MobileOne()
    assert model.arch is ARCHS['s0'] is get_arch('S0') is get_arch(ARCHS['s0'])
    assert list(ARCHS) == ['s0', 's1', 's2', 's3', 's4', 'mu0', 'mu1', 'mu2']
    assert get_arch(TINY | dict(width_factor=[1 / 64] * 4)).width_factor == (1 / 64,) * 4
    assert (model.in_channels, model.out_indices, model.frozen_stages) == (3, (3,), -1)
    assert MobileOne(TINY, in_channels=1)(torch.rand(2, 1, 64, 64))[0].shape == (2, 64, 2, 2)


def test_the_usual_start():
    """Kaiming for convolutions, scale 1 and shift 0 for BN, whatever was there before."""
    model = MobileOne(dict(TINY, num_se_blocks=[0, 0, 0, 1]))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            assert set(module.weight.tolist()) == {1.0}
            assert set(module.bias.tolist()) == {0.0}
        elif isinstance(module, nn.Conv2d) and module.weight.numel() > 500:
            fan_out = module.weight[:, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3, 4])
def test_frozen_from_the_constructor_on_and_after_train(frozen_stages):
    model = MobileOne(TINY, frozen_stages=frozen_stages)
    for _ in range(2):
        for index, stage in enumerate(model.stages):
            frozen = index <= frozen_stages
            assert all(p.requires_grad is not frozen for p in stage.parameters())
            assert all(m.training is not frozen for m in stage.modules())
        assert model.train() is model
    assert model.eval() is model
    before = copy.deepcopy(model.stages[: frozen_stages + 1])
    model.train()(torch.randn(2, 3, 64, 64))
    for old, new in zip(before, model.stages[: frozen_stages + 1], strict=True):
        assert all(torch.equal(v, new.state_dict()[k]) for k, v in old.state_dict().items())


def test_norm_eval_keeps_statistics():
    model = MobileOne(TINY, norm_eval=True)
    assert model.training
    for _ in range(2):
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        assert norms
        assert not any(m.training for m in norms)
        model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))[0].sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gradient_checkpointing_changes_nothing(dtype, norm):
    arch = dict(TINY, num_se_blocks=[0, 0, 1, 1])
    norm_cfg = dict(type=norm)
    plain = randomize_(MobileOne(arch, out_indices=ALL, norm_cfg=norm_cfg)).to(dtype)
    saving = MobileOne(arch, out_indices=ALL, norm_cfg=norm_cfg, with_cp=True).to(dtype)
    saving.load_state_dict(plain.state_dict())
    for step in range(2):
        x = torch.randn(2, 3, 64, 64, dtype=dtype, generator=torch.Generator().manual_seed(step))
        outputs = [model(x) for model in (plain, saving)]
        assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
        for output in outputs:
            sum(o.square().mean() for o in output).backward()
    gradients = dict(saving.named_parameters())
    assert all(torch.equal(p.grad, gradients[n].grad) for n, p in plain.named_parameters())
    state = saving.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in plain.state_dict().items())
    assert int(state['stage1.0.branch_scale.norm.num_batches_tracked']) == 2


def test_stages_beyond_the_outputs_are_neither_run_nor_trained():
    """They would cost time for nothing, and DDP would wait for their gradients."""
    model = MobileOne(TINY, out_indices=(0, 'stem'))
    model.stage2.register_forward_hook(lambda *_: pytest.fail('stage 1 was run'))
    full = MobileOne(TINY, out_indices=(0, 'stem', 3))
    full.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for ours, expected in zip(model(x), full(x)[:2], strict=True):
        assert torch.equal(ours, expected)
    sum(out.sum() for out in model.train()(x)).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in model.stage4.parameters())
    assert all(p.requires_grad for p in full.parameters())


@pytest.mark.parametrize('scale', [True, False])
@pytest.mark.parametrize('identity', [True, False])
def test_branches_can_be_left_out(scale, identity):
    arch = dict(TINY, num_conv_branches=[1, 1, 2, 1])
    options = dict(use_scale=scale, use_identity=identity)
    model = MobileOne(arch, **options).double().eval()
    keys = [key for key in model.state_dict() if 'num_batches' not in key]
    assert any('branch_scale' in key for key in keys) is scale
    assert any('branch_norm' in key for key in keys) is identity
    randomize_(model, seed=1)
    fused = reparameterize_model(model)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    assert max_difference(model(x), fused(x))[1] < 1e-12
    assert fused.state_dict().keys() == MobileOne(arch, deploy=True, **options).state_dict().keys()


def test_near_identity_from_other_values():
    """Each value is set, whatever it was, and a branch scale of 0 is allowed."""
    block = MobileOneBlock(16, 16, 3, with_identity=True, with_se=True)
    wider = MobileOneBlock(16, 32, 3)
    deploy = MobileOneBlock(16, 16, 3, deploy=True)
    plain = MobileOneBlock(16, 16, 3, with_identity=True, norm_cfg=dict(type='BN', affine=False))
    for module in (block, wider, deploy, plain):
        for parameter in module.parameters():
            nn.init.constant_(parameter, 7.0)
        NearIdentityInit(branch_scale=0, identity_shift=-2)(module)
    for branch in block.reparam_branches():
        identity = branch.weight is None
        assert set(branch.norm.weight.tolist()) == {1.0 if identity else 0.0}
        assert set(branch.norm.bias.tolist()) == {-2.0 if identity else 0.0}
    assert {v for b in wider.reparam_branches() for v in b.norm.weight.tolist()} == {1.0}
    for conv in (m for m in [*block.modules(), *deploy.modules()] if isinstance(m, nn.Conv2d)):
        fan_out = conv.weight[:, 0].numel()
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2)
        assert conv.bias is None or not conv.bias.any()
    assert repr(NearIdentityInit()) == 'NearIdentityInit(branch_scale=0.2, identity_shift=1.0)'


def test_near_identity_is_named_in_the_log_and_checks_its_arguments():
    backbone = MobileOne(TINY, init_cfg=dict(type='mobileone_mm.NearIdentityInit'))
    backbone._params_init_info = {
        p: dict(init_info='', tmp_mean_value=0) for p in backbone.parameters()
    }
    backbone.init_weights()
    infos = {info['init_info'] for info in backbone._params_init_info.values()}
    assert any('NearIdentityInit(branch_scale=0.2' in info for info in infos)
    assert set(backbone.stage2[2].branch_norm.bias.tolist()) == {1.0}
    for bad, error in (
        (dict(branch_scale=-0.1), ValueError),
        (dict(branch_scale=True), TypeError),
        (dict(identity_shift='1'), TypeError),
    ):
        with pytest.raises(error, match=next(iter(bad))):
            NearIdentityInit(**bad)


BAD = [
    (dict(arch='s9'), ValueError, "arch: got 's9'; expected one of s0, s1"),
    (dict(arch=3), TypeError, 'arch: got int'),
    (dict(arch=dict(num_blocks=[1] * 4)), ValueError, "arch: missing key 'width_factor'"),
    (dict(arch=dict(TINY, depth=3)), ValueError, "arch: unknown key 'depth'"),
    (tiny(num_blocks=[1, 1]), ValueError, 'arch.num_blocks: got 2 values; expected 4'),
    (tiny(num_blocks=[1, 1, 1, 0]), ValueError, r'num_blocks\[3\]: got 0; .* at least 1'),
    (tiny(num_se_blocks=[2, 0, 0, 0]), ValueError, 'arch.num_se_blocks: got .* at most the blocks'),
    (tiny(num_se_blocks=[-1, 0, 0, 0]), ValueError, 'got -1; .* at least 0'),
    (tiny(width_factor=[0.001] * 4), ValueError, 'arch.width_factor'),
    (tiny(width_factor='1111'), TypeError, "arch.width_factor: got '1111'"),
    (tiny(width_factor=[1, 1, 1, True]), TypeError, 'expected numbers'),
    (tiny(width_factor=[1, 1, 1, float('inf')]), ValueError, 'finite'),
    (dict(in_channels=0), ValueError, 'in_channels: got 0; expected an integer of at least 1'),
    (dict(out_indices=(4,)), ValueError, 'out_indices: got 4; expected 0 to 3'),
    (dict(out_indices=(-5,)), ValueError, 'out_indices: got -5; expected 0 to 3'),
    (dict(out_indices='stage'), ValueError, "out_indices: got 'stage'"),
    (dict(out_indices=(True,)), ValueError, 'out_indices: got True'),
    (dict(out_indices=()), TypeError, 'out_indices'),
    (dict(out_indices=2.0), TypeError, 'out_indices'),
    (dict(out_indices=(1, -3)), ValueError, 'names a stage twice'),
    (dict(output_stride=4), ValueError, 'output_stride: got 4; expected 8, 16 or 32'),
    (dict(output_stride=16, dilations=(1, 1, 1, 2)), ValueError, 'given together'),
    (dict(output_stride=16, strides=(2, 2, 2, 1)), ValueError, 'given together'),
    (dict(strides=(0, 2, 2, 2)), ValueError, r'strides\[0\]: got 0'),
    (dict(strides=(2, 2, 2, 3)), ValueError, r'strides\[3\]: got 3; .* integer from 1 to 2'),
    (dict(dilations=(1, 1, 1, 0)), ValueError, r'dilations\[3\]: got 0'),
    (dict(dilations=2), TypeError, 'dilations: got 2'),
    (dict(frozen_stages=-2), ValueError, 'frozen_stages: got -2'),
    (dict(frozen_stages=5), ValueError, 'frozen_stages: got 5; expected an integer from -1 to 4'),
    (dict(norm_eval=1), TypeError, 'norm_eval: got 1; expected True or False'),
    (dict(norm_cfg=dict(type='GN', num_groups=1)), ValueError, 'norm_cfg: .*; expected BN or S'),
    (dict(norm_cfg=dict(type='Nothing')), ValueError, 'norm_cfg: .*Nothing.*; expected BN or'),
    (dict(norm_cfg=dict(type='GN')), ValueError, 'norm_cfg: .*GN.*; expected BN or'),
    (dict(norm_cfg=dict(type='BN', epz=1)), TypeError, 'norm_cfg: .*epz'),
    (dict(norm_cfg='BN'), TypeError, "norm_cfg: got 'BN'; expected a dict"),
    (dict(norm_cfg=None), TypeError, 'norm_cfg: got None; expected a dict'),
    (dict(act_cfg=dict()), TypeError, 'act_cfg: got {}'),
]


@pytest.mark.parametrize(('options', 'error', 'message'), BAD)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message) as raised:
        MobileOne(**{'arch': TINY, **options})
    assert '\n' not in str(raised.value)
