"""Lifting a kernel into branches: their sum is the kernel, and no two branches are equal."""

import pytest
import torch

from mobileone_mm.reparam.algebra import identity_kernel, lift_kernel

EPS = 1e-3


def lifted(kinds, shape=(8, 8, 3, 3), seed=0):
    kernel = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(7))
    bias = torch.randn(shape[0], generator=torch.Generator().manual_seed(8))
    before = kernel.clone()
    branches = lift_kernel(kernel, bias, kinds, EPS, torch.Generator().manual_seed(seed))
    assert torch.equal(kernel, before)
    return kernel.double(), bias.double(), branches


def fused(branch, shape):
    """The kernel of a branch, padded, with its BN folded in by the formula."""
    full = torch.zeros(shape, dtype=torch.float64)
    if branch.kernel is None:
        full = identity_kernel(shape)
    elif branch.kernel.shape[-1] == shape[-1]:
        full += branch.kernel
    else:
        centre = shape[-1] // 2
        full[:, :, centre, centre] = branch.kernel[:, :, 0, 0]
    scale = branch.norm['weight'] / torch.sqrt(branch.norm['running_var'] + EPS)
    return full * scale[:, None, None, None]


@pytest.mark.parametrize('shape', [(8, 8, 3, 3), (8, 1, 5, 5), (8, 2, 3, 3)])
@pytest.mark.parametrize(
    'kinds', ['conv', 'scale conv conv', 'identity conv', 4 * 'conv ' + 'scale identity']
)
def test_the_sum_is_the_kernel(kinds, shape):
    kinds = kinds.split()
    kernel, bias, branches = lifted(kinds, shape)
    parts = [fused(branch, shape) for branch in branches]
    torch.testing.assert_close(sum(parts), kernel, rtol=0, atol=1e-14)
    assert [branch.kernel is None for branch in branches] == [kind == 'identity' for kind in kinds]
    for number, branch in enumerate(branches):
        assert {value.dtype for value in branch.norm.values()} == {torch.float64}
        assert torch.equal(branch.norm['bias'], bias if number == 0 else torch.zeros(8).double())
        assert torch.equal(branch.norm['running_mean'], torch.zeros(8).double())
        assert torch.equal(branch.norm['running_var'], torch.ones(8).double())


def test_shares_of_the_branches():
    """Scale: half of the centre; identity: half of the remaining diagonal; conv: equal shares."""
    kernel, _, branches = lifted(['conv', 'conv', 'scale', 'identity'])
    shape, diagonal = kernel.shape, torch.arange(8)
    first, second, scale, identity = (fused(branch, shape) for branch in branches)
    torch.testing.assert_close(scale[:, :, 1, 1], kernel[:, :, 1, 1] / 2)
    torch.testing.assert_close(
        identity[diagonal, diagonal, 1, 1], kernel[diagonal, diagonal, 1, 1] / 4
    )
    rest = kernel - scale - identity
    difference = (first - second).std() / rest.std()
    assert 0.05 < difference < 0.12  # 0.1 of the spread of a share, of two shares
    torch.testing.assert_close((first + second) / 2, rest / 2)


def test_the_differences_follow_the_generator():
    one, same, other = (lifted(['conv'] * 3, seed=seed)[2][0].kernel for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
