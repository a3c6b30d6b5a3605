"""Say in one line why a file does not fit a model: another size, form, task or head, bad values."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .names import is_unit_key, parse, places, scheme_of, some_keys


class Differences:
    """Keys of a model (the target) and of a file by where they are and how their shapes agree."""

    def __init__(self, target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        self.target, self.state = target, state
        self.common = [key for key in target if key in state]
        # Old files lack the counter, and nothing that is evaluated depends on it.
        lacking = [key for key in target if key not in state]
        self.missing = [key for key in lacking if not key.endswith('num_batches_tracked')]
        self.unexpected = [key for key in state if key not in target]
        self.shapes = [key for key in self.common if target[key].shape != state[key].shape]


def mismatch(found: Differences, allow_other: bool) -> str | None:
    """Return the most likely reason why the file is not one of this model, or None if it is one."""
    unexpected = [
        key for key in found.unexpected if not allow_other or is_unit_key(key, 'mmpretrain')
    ]
    if not (found.missing or unexpected or found.shapes):
        return None
    if scheme_of(found.target) and not scheme_of(found.state):
        return f'holds no MobileOne (its keys: {some_keys(found.state)}); another backbone?'
    return shape_problem(found) or common_problem(found) or _key_problem(found, unexpected)


def shape_problem(found: Differences) -> str | None:
    """Return how the shapes differ, or None."""
    if not found.shapes:
        return None
    key, count = found.shapes[0], len(found.shapes) - 1
    pair = (
        f"'{key}' is {list(found.state[key].shape)}, the model's {list(found.target[key].shape)}"
        + (f' (and {count} more)' if count else '')
    )
    if not any(map(_is_of_unit, found.shapes)):
        return f'has other shapes: {pair}; another number of classes or another head?'
    file, model = (_stage_widths(tensors) for tensors in (found.state, found.target))
    if file == model:
        return f'has other shapes in the backbone: {pair}; another arch or in_channels?'
    return (
        f"is of another size: its stages are {file} channels wide, the model's {model}; set the arch "
        'of the checkpoint'
    )


def common_problem(found: Differences) -> str | None:
    """Return what to do if there is no key in common, or None."""
    if found.common:
        return None
    inside = sorted(filter(None, places(found.state)))
    hint = f"take a part of it with prefix='{inside[0]}'" if inside else 'another model or task?'
    return (
        f"has no key in common with the model (its keys: {some_keys(found.state)}; the model's: "
        f'{some_keys(found.target)}); {hint}'
    )


def _key_problem(found: Differences, unexpected: list[str]) -> str:
    missing, modules = found.missing, {key.rpartition('.')[0] for key in found.common}
    if single := [key for key in missing if key.rpartition('.')[0] in modules]:
        return f'is incomplete: it lacks {some_keys(single)}'
    units = [key for key in [*missing, *unexpected] if _is_of_unit(key)]
    if not units:
        parts = []
        if missing:
            parts.append(f'lacks {len(missing)} keys ({some_keys(missing)})')
        if unexpected:
            many = len(unexpected)
            parts.append(f'has {many} keys that the model lacks ({some_keys(unexpected)})')
        return f'does not fit the model: it {" and ".join(parts)}; another task or another head?'
    have, want = ('without', 'with') if missing else ('with', 'without')
    for part, what, hint in (
        ('.se.', 'squeeze-and-excitation', 'the argument use_se'),
        ('.branch_scale.', 'the branches of use_scale', 'that argument'),
        ('.branch_norm.', 'the branches of use_identity', 'that argument'),
    ):
        if all(part in key for key in units):
            return f'is {have} {what}, the model {want}; see {hint}'
    return (
        f'is of another size: units or branches differ ({some_keys(units)}); set the arch of the '
        'checkpoint'
    )


def _is_of_unit(key: str) -> bool:
    return re.search(r'(?:^|\.)stage\d\.', key) is not None


def _stage_widths(state: Mapping[str, Tensor]) -> str:
    """Return the output channels of the stem and the stages, each of its last unit."""
    last: dict[int, tuple[int, int]] = {}
    for key, value in state.items():
        name = parse(key, 'mmpretrain')
        if name and name.part in ('conv', 'fused') and value.ndim == 4:
            width = name.unit or 0, int(value.shape[0])
            last[name.stage or 0] = max(width, last.get(name.stage or 0, width))
    return '/'.join(str(width) for _, (_, width) in sorted(last.items())) or 'unknown'


def value_problem(target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """Return what is wrong with the values that a model would take, or None."""
    problems = (
        number_problem(key, state[key], own.dtype)
        for key, own in target.items()
        if key in state and not _on_purpose(own, state[key])
    )
    return next(filter(None, problems), None)


def _on_purpose(own: Tensor, value: Tensor) -> bool:
    """Return whether a model is built with NaN or Inf in the same places, such as a mask of -Inf."""
    if own is value or own.is_meta or not own.is_floating_point() or own.shape != value.shape:
        return False
    finite = torch.isfinite(own)
    return not bool(finite.all()) and torch.equal(finite, torch.isfinite(value).to(finite.device))


def number_problem(key: str, value: Tensor, dtype: torch.dtype) -> str | None:
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
