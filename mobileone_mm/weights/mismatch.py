"""Say in one line why a file does not fit a model: another size, form, task or head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .names import places, scheme_of

_UNIT_KEY = re.compile(r'stage\d\.')  # of a bare backbone
STAGE_KEY = re.compile(r'(?:^|.*\.)(?=stage\d\.)')


@dataclass(frozen=True)
class Differences:
    common: list[str]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @classmethod
    def between(
        cls,
        target: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        allow_missing: tuple[str, ...] = (),
    ) -> Differences:
        common = [key for key in target if key in state]
        missing = [
            key
            for key in target
            # Old files lack the counter, and nothing that is evaluated depends on it.
            if key not in state
            and not key.endswith('num_batches_tracked')
            and not key.startswith(allow_missing or ('\0',))
        ]
        unexpected = [key for key in state if key not in target]
        shapes = [key for key in common if target[key].shape != state[key].shape]
        return cls(common, missing, unexpected, shapes)


def mismatch(
    target: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    differences: Differences,
    allow_other: bool,
) -> str | None:
    """The most likely reason why the file is not one of this model, or None if it is one."""
    unexpected = [k for k in differences.unexpected if not allow_other or _UNIT_KEY.match(k)]
    if not (differences.missing or unexpected or differences.shapes):
        return None
    return (
        _backbone_problem(target, state)
        or shape_problem(target, state, differences.shapes)
        or common_problem(target, state, differences.common)
        or _unit_problem(differences.missing, unexpected)
        or _key_problem(differences.missing, unexpected)
    )


def _backbone_problem(target: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    if scheme_of(target) and not scheme_of(state):
        return f'holds no MobileOne (its keys: {some_keys(state)}); another backbone?'
    return None


def shape_problem(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor], shapes: list[str]
) -> str | None:
    if not shapes:
        return None
    key, more = shapes[0], f' (and {len(shapes) - 1} more)' if len(shapes) > 1 else ''
    pair = f"'{key}' is {list(state[key].shape)}, the model's {list(target[key].shape)}{more}"
    if not any(STAGE_KEY.match(key) for key in shapes):
        return f'has other shapes: {pair}; another number of classes or another head?'
    problem = width_problem(stage_widths(state), stage_widths(target))
    if problem:
        return problem
    return f'has other shapes in the backbone: {pair}; another arch or in_channels?'


def width_problem(file: tuple[int, ...], model: tuple[int, ...]) -> str | None:
    if file == model:
        return None
    return (
        f'is of another size: its stages are {_join(file)} channels wide, the '
        f"model's {_join(model)}; set the arch of the checkpoint"
    )


def common_problem(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor], common: list[str]
) -> str | None:
    if common:
        return None
    found = sorted(place for place in places(state) if place)
    hint = f"; take a part of it with prefix='{found[0]}'" if found else '; another model or task?'
    return (
        f"has no key in common with the model (its keys: {some_keys(state)}; the model's: "
        f'{some_keys(target)}){hint}'
    )


def _unit_problem(missing: list[str], unexpected: list[str]) -> str | None:
    units = [key for key in [*missing, *unexpected] if STAGE_KEY.match(key)]
    if not units:
        return None
    if all('.se.' in key for key in units):
        have, want = ('without', 'with') if missing else ('with', 'without')
        return f'is {have} squeeze-and-excitation, the model {want}; see the argument use_se'
    for branch, option in (('.branch_scale.', 'use_scale'), ('.branch_norm.', 'use_identity')):
        if all(branch in key for key in units):
            have, want = ('without', 'with') if missing else ('with', 'without')
            return f'is {have} the branches of {option}, the model {want}; see that argument'
    return (
        f'is of another size: units or branches differ ({some_keys(units)}); set the arch of the '
        'checkpoint'
    )


def _key_problem(missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f'lacks {len(missing)} keys ({some_keys(missing)})')
    if unexpected:
        parts.append(f'has {len(unexpected)} keys that the model lacks ({some_keys(unexpected)})')
    return f'does not fit the model: it {" and ".join(parts)}; another task or another head?'


def stage_widths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Output channels of the stem and the stages of the first MobileOne in a state dict."""
    widths: dict[int, tuple[int, int]] = {}
    for key, value in state.items():
        match = re.search(r'(?:^|\.)stage(\d)\.(?:(\d+)\.)?(branch_reparam|.*conv)\.weight$', key)
        if match and value.ndim == 4:
            stage, unit = int(match[1]), int(match[2] or 0)
            if '.se.' not in key and unit >= widths.get(stage, (0, 0))[0]:
                widths[stage] = (unit, int(value.shape[0]))
    return tuple(width for _, (_, width) in sorted(widths.items()))


def _join(widths: tuple[int, ...]) -> str:
    return '/'.join(map(str, widths)) or 'unknown'


def some_keys(keys: Iterable[str], count: int = 3) -> str:
    keys = list(keys)
    return ', '.join(map(str, keys[:count])) + (', ...' if len(keys) > count else '')
