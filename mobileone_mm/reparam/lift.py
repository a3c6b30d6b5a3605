"""Arithmetic of lifting, the opposite of fusing: write one kernel into linear branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ('conv', 'scale', 'identity')
# Standard deviation of the differences between conv branches, relative to that of their kernels. Equal
# branches would get equal gradients and stay equal.
_SPREAD = 0.1


class LiftedBranch(NamedTuple):
    """One branch in float64."""

    kernel: Tensor | None  # of the convolution; None for the identity branch
    norm: dict[str, Tensor]  # `weight`, `bias`, `running_mean` and `running_var` of the BN


def lift_kernel(
    kernel: Tensor,
    bias: Tensor,
    kinds: Sequence[str],
    eps: float,
    generator: torch.Generator | None = None,
) -> list[LiftedBranch]:
    """Return branches whose sum in eval mode is the convolution with a kernel and a bias.

    Fusing is a sum, so many sets of branches are possible. Here the scale branch gets half of the
    kernel's centre, the identity branch half of the remaining diagonal, and the conv branches share
    the rest equally, with small differences that cancel. The first branch gets the bias as its shift.
    The running statistics are mean 0 and variance 1.

    Args:
        kernel: Shape (out, in / groups, k, k), k odd.
        bias: Shape (out,).
        kinds: ``conv``, ``scale`` or ``identity`` for each branch in any order; at least one conv.
        eps: ε of the BN layers.
        generator: Random generator of the differences.

    Raises:
        ValueError: No branch is a conv branch, or a kind is unknown.
    """
    if 'conv' not in kinds or not set(kinds) <= set(KINDS):
        raise ValueError(
            f'kinds: got {list(kinds)}; expected {", ".join(KINDS)}, at least one conv'
        )
    rest = kernel.detach().to(device='cpu', dtype=torch.float64).clone()
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
            'bias': 0 * ones if number else bias.detach().to(device='cpu', dtype=torch.float64),
            'running_mean': 0 * ones,
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
