"""Arithmetic of fusing as pure functions of tensors.

For a branch ``BN(W * x)`` in eval mode with scale γ, shift β, running mean μ, running variance σ²
and ε, the fused kernel and bias are ``W γ / s`` and ``β - μ γ / s`` with ``s = sqrt(σ² + ε)`` per
output channel (arXiv 2206.04040, section 3.2; the text omits ε, the reference code has it). The
fused convolution is the sum over all branches. All arithmetic is float64 on the CPU: fusing takes
milliseconds, and float32 sums of branches would lose digits permanently.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .protocol import Branch


def identity_kernel(shape: tuple[int, int, int, int]) -> Tensor:
    """Return the float64 kernel whose convolution returns its input.

    Args:
        shape: (out, in / groups, k, k); out is also the number of input channels.
    """
    out_channels, in_per_group, height, width = shape
    kernel = torch.zeros(shape, dtype=torch.float64)
    channel = torch.arange(out_channels)
    kernel[channel, channel % in_per_group, height // 2, width // 2] = 1
    return kernel


def norm_to_affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift (float64, CPU) of a batch normalisation in eval mode.

    Raises:
        ValueError: There are no running statistics, a value is not finite, or σ² + ε is not
            positive.
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

    Args:
        branches: At least one branch; smaller kernels are padded with zeros.
        shape: (out, in / groups, k, k) of the fused kernel.

    Raises:
        ValueError: A norm cannot be fused, or a kernel contains NaN or Inf.
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


def _double(tensor: Tensor) -> Tensor:
    # Some devices (MPS) have no float64.
    return tensor.detach().to(device='cpu', dtype=torch.float64)
