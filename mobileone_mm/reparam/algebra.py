"""Arithmetic of fusing and of lifting, the opposite, as pure functions of tensors.

For a branch ``BN(W * x)`` in eval mode with scale γ, shift β, running mean μ, running variance σ²
and ε, the fused kernel and bias are ``W γ / s`` and ``β - μ γ / s`` with ``s = sqrt(σ² + ε)`` per
output channel (arXiv 2206.04040, section 3.2; the text omits ε, the reference code has it). The
fused convolution is the sum over all branches. All arithmetic is float64 on the CPU: fusing takes
milliseconds, and float32 sums of branches would lose digits permanently.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .protocol import Branch

# Standard deviation of the differences between conv branches, relative to that of their kernels. Equal
# branches would get equal gradients and stay equal.
_SPREAD = 0.1


def identity_kernel(shape: tuple[int, int, int, int]) -> Tensor:
    """Return the float64 kernel (out, in / groups, k, k) whose convolution returns its input."""
    out_channels, in_per_group, height, width = shape
    kernel = torch.zeros(shape, dtype=torch.float64)
    channel = torch.arange(out_channels)
    kernel[channel, channel % in_per_group, height // 2, width // 2] = 1
    return kernel


def norm_to_affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift (float64, CPU) of a batch normalisation in eval mode.

    Missing running statistics, a value that is not finite, or σ² + ε ≤ 0 are a ValueError.
    """
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        raise ValueError(
            'norm: has no running statistics (track_running_stats=False), so its output depends on '
            'the batch and it cannot be fused'
        )
    mean, var = _double(mean), _double(var)
    weight = torch.ones_like(mean) if norm.weight is None else _double(norm.weight)
    bias = torch.zeros_like(mean) if norm.bias is None else _double(norm.bias)
    if not all(bool(torch.isfinite(t).all()) for t in (mean, var, weight, bias)):
        raise ValueError(
            'norm: its statistics or parameters contain NaN or Inf; the weights are corrupt'
        )
    if bool((var + norm.eps <= 0).any()):
        raise ValueError(
            f'norm: got a running_var of {float(var.min()):.3g}; expected running_var + eps above 0; '
            'the weights are corrupt'
        )
    scale = weight / torch.sqrt(var + norm.eps)
    return scale, bias - mean * scale


def fuse_branches(
    branches: Sequence[Branch], shape: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor]:
    """Return kernel and bias (float64, CPU) of one convolution equal to the sum of the branches.

    ``shape`` is (out, in / groups, k, k); smaller kernels are padded with zeros. A norm that cannot be
    fused, and a kernel with NaN or Inf, are a ValueError.
    """
    kernel = torch.zeros(shape, dtype=torch.float64)
    bias = torch.zeros(shape[0], dtype=torch.float64)
    for branch in branches:
        scale, shift = norm_to_affine(branch.norm)
        weight = identity_kernel(shape) if branch.weight is None else _double(branch.weight)
        if not bool(torch.isfinite(weight).all()):
            raise ValueError('weight: a kernel contains NaN or Inf; the weights are corrupt')
        top, left = (shape[2] - weight.shape[2]) // 2, (shape[3] - weight.shape[3]) // 2
        centre = kernel[:, :, top : top + weight.shape[2], left : left + weight.shape[3]]
        centre += weight * scale.reshape(-1, 1, 1, 1)
        bias += shift
    return kernel, bias


class LiftedBranch(NamedTuple):
    """One branch in float64."""

    kernel: Tensor | None  # of the convolution; None for the identity branch
    norm: dict[str, Tensor]  # `weight`, `bias`, `running_mean` and `running_var` of the BN


def lift_kernel(
    kernel: Tensor,
    bias: Tensor,
    kinds: Sequence[str],
    eps: float,
    generator: torch.Generator | None,
) -> list[LiftedBranch]:
    """Return branches whose sum in eval mode is the convolution with a kernel and a bias.

    Fusing is a sum, so many sets of branches are possible. Here the scale branch gets half of the
    kernel's centre, the identity branch half of the remaining diagonal, and the conv branches share
    the rest equally, with small differences that cancel. The first branch gets the bias as its shift.
    The running statistics are mean 0 and variance 1, with ``eps`` as ε.

    The kernel has the shape (out, in / groups, k, k) with an odd k, the bias (out,). ``kinds`` has
    ``conv``, ``scale`` or ``identity`` for each branch in any order; at least one conv. The differences
    follow the ``generator``.
    """
    rest = _double(kernel).clone()
    ones = torch.ones(len(rest), dtype=torch.float64)
    row, column = rest.shape[2] // 2, rest.shape[3] // 2
    kernels: dict[str, list[Tensor | None]] = {}
    scales = {'conv': ones, 'scale': ones}
    if 'scale' in kinds:
        centre = rest[:, :, row, column] / 2
        rest[:, :, row, column] -= centre
        kernels['scale'] = [centre[:, :, None, None]]
    if 'identity' in kinds:
        channel = torch.arange(len(rest))
        own = channel % rest.shape[1]
        scales['identity'] = rest[channel, own, row, column] / 2
        rest[channel, own, row, column] -= scales['identity']
        kernels['identity'] = [None]
    kernels['conv'] = list(_shares(rest, kinds.count('conv'), generator))
    branches = []
    for number, kind in enumerate(kinds):
        norm = {
            'weight': scales[kind] * (1 + eps) ** 0.5,  # BN divides by sqrt(1 + eps)
            'bias': torch.zeros_like(ones) if number else _double(bias),
            'running_mean': torch.zeros_like(ones),
            'running_var': ones.clone(),
        }
        branches.append(LiftedBranch(kernels[kind].pop(0), norm))
    return branches


def _shares(kernel: Tensor, count: int, generator: torch.Generator | None) -> list[Tensor]:
    """Return kernels that differ slightly and whose sum is ``kernel``."""
    shares = [kernel / count for _ in range(count)]
    if count == 1:
        return shares
    noise = torch.randn((count, *kernel.shape), generator=generator, dtype=torch.float64)
    noise -= noise.mean(0)
    spread = _SPREAD * float(kernel.std(correction=0)) / count
    shares = [share + spread * part for share, part in zip(shares, noise, strict=True)]
    shares[-1] = kernel - torch.stack(shares[:-1]).sum(0)  # the exact remainder
    return shares


def _double(tensor: Tensor) -> Tensor:
    # Some devices (MPS) have no float64.
    return tensor.detach().to(device='cpu', dtype=torch.float64)
