"""The unit by itself: its branches, its two forms, checkpointing, and what stays unchanged."""

from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import randomize_
from mobileone_mm import reparameterize_model
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.models.block import SqueezeExcite, SubsampledConv2d, statistics_unchanged
from mobileone_mm.reparam.compare import max_difference


def test_defaults():
    """One conv branch and the scale branch, without identity, SE, activation and checkpointing."""
    block = MobileOneBlock(8, 8, 3)
    assert len(block.branch_conv_list) == 1
    assert block.branch_scale.conv.weight.shape == (8, 8, 1, 1)
    assert block.branch_norm is None
    assert isinstance(block.se, nn.Identity)
    assert isinstance(block.act, nn.Identity)
    assert not block.with_cp
    assert not block.deploy
    assert block.kernel_shape == (8, 8, 3, 3)
    assert block(torch.rand(2, 8, 5, 7)).shape == (2, 8, 5, 7)
    assert MobileOneBlock(8, 8, 1).branch_scale is None
    assert MobileOneBlock(8, 8, 3, with_scale=False).branch_scale is None
    widths = [SqueezeExcite(size).conv1.conv.out_channels for size in (16, 176, 448, 512, 560, 896)]
    assert widths == [8, 16, 32, 32, 32, 56]


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_sizes_of_kernels(kernel_size, dilation):
    """The output has the size of the input, and the deploy form is the same function."""
    block = MobileOneBlock(4, 4, kernel_size, 2, dilation=dilation, with_identity=True)
    block = randomize_(block).double().eval()
    x = torch.rand(2, 4, 11, 9, dtype=torch.float64)
    assert block(x).shape == x.shape
    dilations = {m.dilation[0] for m in block.modules() if isinstance(m, nn.Conv2d)}
    assert dilations == ({1} if kernel_size == 1 else {1, dilation})
    assert max_difference(block(x), reparameterize_model(block)(x))[1] < 1e-13


@pytest.mark.parametrize('deploy', [False, True])
def test_eps_is_known_in_both_forms(deploy):
    assert MobileOneBlock(4, 4, 3, deploy=deploy).norm_eps == 1e-5
    cfg = dict(type='BN', eps=1e-3)
    block = MobileOneBlock(4, 4, 3, norm_cfg=cfg, deploy=deploy)
    assert block.norm_eps == 1e-3
    assert cfg == dict(type='BN', eps=1e-3)
    if not deploy:
        assert {branch.norm.eps for branch in block.reparam_branches()} == {1e-3}


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_subsampled_convolution(stride, groups):
    """Used for strided dense 1x1 convolutions alone, and equal to torch's."""
    block = randomize_(MobileOneBlock(4, 8, 3, stride=stride, groups=groups)).double()
    scale = block.branch_scale.conv
    direct = SubsampledConv2d(4, 8, 1, stride=stride, groups=groups, bias=False).double()
    direct.load_state_dict(scale.state_dict())
    assert isinstance(scale, SubsampledConv2d) is (stride > 1 and groups == 1)
    assert not isinstance(block.branch_conv_list[0].conv, SubsampledConv2d)
    x = torch.rand(2, 4, 11, 8, dtype=torch.float64)
    expected = F.conv2d(x, scale.weight, stride=stride, groups=groups)
    for conv in (scale, direct):
        assert max_difference(expected, conv(x))[0] < 1e-14


def test_squeeze_excite_against_its_formula():
    se = randomize_(SqueezeExcite(32)).double()
    x = torch.rand(2, 32, 5, 4, dtype=torch.float64)
    first, second = (layer.conv for layer in (se.conv1, se.conv2))
    hidden = (x.mean((2, 3)) @ first.weight[:, :, 0, 0].T + first.bias).clamp(min=0)
    gate = torch.sigmoid(hidden @ second.weight[:, :, 0, 0].T + second.bias)
    assert max_difference(x * gate[:, :, None, None], se(x))[1] < 1e-14


@pytest.mark.parametrize('without', ['with_cp', 'training', 'grad', 'branches', None])
def test_checkpointing_runs_the_branches_again(without):
    """Only in training with gradients, the backward pass repeats the forward pass."""
    deploy, training, calls = without == 'branches', without != 'training', []
    block = MobileOneBlock(4, 4, 3, with_identity=True, with_cp=without != 'with_cp', deploy=deploy)
    block.train(training)
    first = block.branch_reparam if deploy else block.branch_conv_list[0]
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 4, 6, 6, requires_grad=True)
    with torch.set_grad_enabled(without != 'grad'):
        out = block(x)
    if without != 'grad':
        out.sum().backward()
    assert len(calls) == (1 if without else 2)
    if not deploy:
        assert int(block.branch_norm.num_batches_tracked) == int(training)


def test_statistics_are_unchanged_also_after_an_error():
    norm = nn.BatchNorm2d(3, momentum=0.3)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    counter = norm.num_batches_tracked
    with suppress(RuntimeError), statistics_unchanged(nn.Sequential(norm)):
        norm(torch.rand(2, 3, 4, 4))
        raise RuntimeError
    assert norm.momentum == 0.3
    assert norm.num_batches_tracked is counter
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
    norm(torch.rand(2, 3, 4, 4))
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize('training', [False, True])
def test_the_new_convolution_has_the_mode_of_the_block(training):
    block = MobileOneBlock(4, 4, 3).train(training)
    block.switch_to_deploy(torch.zeros(4, 4, 3, 3), torch.zeros(4))
    assert block.deploy
    assert block.branch_reparam.training is training
    assert set(dict(block.named_parameters())) == {'branch_reparam.weight', 'branch_reparam.bias'}


@pytest.mark.parametrize('trainable', [False, True])
def test_only_branches_decide_whether_the_kernel_is_trained(trainable):
    block = MobileOneBlock(16, 16, 3, with_se=True).eval()
    block.requires_grad_(False)
    block.se.requires_grad_(not trainable)
    block.branch_scale.norm.weight.requires_grad_(trainable)
    fused = reparameterize_model(block)
    assert fused.branch_reparam.weight.requires_grad is trainable
    assert fused.branch_reparam.bias.requires_grad is trainable
    assert fused.se.conv1.conv.weight.requires_grad is not trainable
