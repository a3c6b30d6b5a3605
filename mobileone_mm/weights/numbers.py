"""Check the values of weights: type, NaN, range, variance, and the shapes within a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_UNIT = re.compile(r'(?:^|.*\.)stage\d\.(?:\d+\.)?(?!.*\bse\.)')


def value_problem(target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """Return what is wrong with the values that a model would take, or None."""
    problems = (_problem(key, state[key], own.dtype) for key, own in target.items() if key in state)
    return next(filter(None, problems), None)


def unit_problem(state: Mapping[str, Tensor]) -> str | None:
    """Return what is wrong with the units of a file in mmpretrain's naming, or None.

    Call it before a unit is fused or lifted. The first dimension of all tensors of a unit is its
    output channels; in a damaged file, a product of two tensors could take all memory.
    """
    channels: dict[str, int] = {}
    for key, value in state.items():
        unit = _UNIT.match(key)
        if unit is None or key.endswith('num_batches_tracked'):
            continue
        if problem := _problem(key, value, torch.float64):
            return problem
        first = value.shape[0] if value.ndim in (1, 4) else -1
        if first < 0 or channels.setdefault(unit.group(), first) != first:
            return (
                f"'{key}' is {list(value.shape)[:6]}, which does not fit the rest of its unit; the "
                'file is damaged or no MobileOne'
            )
    return None


def _problem(key: str, value: Tensor, dtype: torch.dtype) -> str | None:
    """Return what is wrong with the values of a tensor that is needed as ``dtype``, or None."""
    if value.is_complex() or (dtype.is_floating_point and not value.is_floating_point()):
        return f"'{key}' holds {value.dtype} where floating point is needed"
    if not value.is_floating_point():
        return None
    if not bool(torch.isfinite(value).all()):
        return f"'{key}' holds NaN or Inf; the training diverged, take an earlier checkpoint"
    if dtype.is_floating_point and not bool(torch.isfinite(value.to(dtype)).all()):
        return f"'{key}' holds values beyond the range of {dtype}; the file is damaged"
    if key.endswith('running_var') and bool((value < 0).any()):
        return f"'{key}' holds a negative variance; the file is damaged"
    return None
