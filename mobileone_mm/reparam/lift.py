"""Arithmetic of lifting, the opposite of fusing: one kernel written into linear branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KINDS = ('conv', 'scale', 'identity')
# Spread of the differences between conv branches, relative to that of their kernels: equal branches
# would get equal gradients and stay one branch for ever.
_SPREAD = 0.1


class LiftedBranch(NamedTuple):
    """One branch, in float64.

    Attributes:
        kernel: Of the convolution; None for the identity branch.
        norm: ``weight``, ``bias``, ``running_mean`` and ``running_var`` of the normalisation.
    """

    kernel: Tensor | None
    norm: dict[str, Tensor]


def lift_kernel(
    kernel: Tensor,
    bias: Tensor,
    kinds: Sequence[str],
    eps: float,
    generator: torch.Generator | None = None,
) -> list[LiftedBranch]:
    """Branches whose sum in eval mode is the convolution of a kernel and a bias.

    Fusing is a sum, so there are many such branches. Here the scale branch takes half of the kernel's
    centre, the identity branch half of what is left on its diagonal, and the conv branches share the
    rest evenly, with small differences that cancel; the bias is the first branch's shift. Statistics
    are neutral: mean 0, variance 1.

    Args:
        kernel: Shape (out, in / groups, k, k), k odd.
        bias: Shape (out,).
        kinds: ``conv``, ``scale`` or ``identity`` for each branch, in any order; at least one conv.
        eps: That of the batch normalisations.
        generator: Of the differences.

    Raises:
        ValueError: There is no conv branch, or an unknown kind.
    """
    if 'conv' not in kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f'kinds: got {list(kinds)}; {", ".join(KINDS)} with at least one conv')
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
    """Kernels that differ a little and sum up to one."""
    shares = [kernel / count for _ in range(count)]
    if count == 1:
        return shares
    noise = torch.randn((count, *kernel.shape), generator=generator, dtype=torch.float64)
    noise -= noise.mean(0)
    spread = _SPREAD * float(kernel.std(correction=0)) / count
    shares = [share + spread * part for share, part in zip(shares, noise, strict=True)]
    shares[-1] = kernel - torch.stack(shares[:-1]).sum(0)  # exact, whatever was rounded
    return shares
