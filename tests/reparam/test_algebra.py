"""Fusing branch by branch, against the convolutions themselves."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import randomize_
from mobileone_mm.reparam import Branch
from mobileone_mm.reparam.algebra import fuse_branches, identity_kernel, norm_to_affine
from mobileone_mm.reparam.compare import max_difference


def _norm(channels, seed=0, **kwargs):
    return randomize_(nn.BatchNorm2d(channels, **kwargs), seed).double().eval()


@pytest.mark.parametrize('groups', [1, 2, 6])
@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_identity_kernel_returns_its_input(groups, kernel_size):
    kernel = identity_kernel((6, 6 // groups, kernel_size, kernel_size))
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    assert torch.equal(F.conv2d(x, kernel, padding=kernel_size // 2, groups=groups), x)


@pytest.mark.parametrize('affine', [True, False])
def test_norm_to_affine(affine):
    norm = _norm(5, affine=affine)
    norm.running_var[2] = 0  # a dead channel is legitimate: eps keeps the scale finite
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    scale, shift = norm_to_affine(norm)
    expected = norm(x)
    actual = x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
    assert max_difference(expected, actual)[1] < 1e-14


@pytest.mark.parametrize('groups', [1, 8])
@pytest.mark.parametrize('dilation', [1, 2, 4])
def test_fused_is_the_sum_of_the_branches(groups, dilation):
    shape = (8, 8 // groups, 3, 3)
    full = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    scale = torch.randn(8, 8 // groups, 1, 1, dtype=torch.float64)
    norms = [_norm(8, seed) for seed in range(5)]
    x = torch.randn(2, 8, 13, 10, dtype=torch.float64)
    expected = sum(
        norm(F.conv2d(x, w, padding=dilation, dilation=dilation, groups=groups))
        for norm, w in zip(norms, full, strict=False)
    )
    expected = expected + norms[3](F.conv2d(x, scale, groups=groups)) + norms[4](x)
    branches = [Branch(n, w) for n, w in zip(norms, [*full, scale, None], strict=True)]
    kernel, bias = fuse_branches(branches, shape)
    actual = F.conv2d(x, kernel, bias, padding=dilation, dilation=dilation, groups=groups)
    assert max_difference(expected, actual)[1] < 1e-13


def test_arithmetic_is_float64_whatever_the_weights_are():
    norm = _norm(4).float()
    kernel, bias = fuse_branches([Branch(norm, torch.randn(4, 4, 1, 1))], (4, 4, 1, 1))
    assert kernel.dtype == bias.dtype == torch.float64


def test_norms_that_cannot_be_fused():
    with pytest.raises(ValueError, match='no running statistics'):
        norm_to_affine(nn.BatchNorm2d(3, track_running_stats=False).eval())
    norm = _norm(3)
    norm.running_var[1] = -1.0
    with pytest.raises(ValueError, match=r'running_var of -1; expected running_var \+ eps above 0'):
        norm_to_affine(norm)
    norm.running_var[1] = -norm.eps  # exactly 0 below the root
    with pytest.raises(ValueError, match='expected running_var'):
        norm_to_affine(norm)
    norm.running_var[1] = float('nan')
    with pytest.raises(ValueError, match='NaN or Inf'):
        norm_to_affine(norm)
    with pytest.raises(ValueError, match='a kernel contains NaN'):
        fuse_branches([Branch(_norm(1), torch.full((1, 1, 1, 1), float('inf')))], (1, 1, 1, 1))
