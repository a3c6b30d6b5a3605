"""The phases of a curriculum, and transforms that change with the phase."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from mmcv.transforms import BaseTransform
from torch import Tensor

from .run_model import datasets_inside

_KEYS = ('begin', 'resolution', 'strength')
#: The attribute that holds the magnitude of each augmentation of mmpretrain; None if it has none.
_MAGNITUDES = {
    'AutoContrast': None,
    'Brightness': 'magnitude',
    'ColorTransform': 'magnitude',
    'Contrast': 'magnitude',
    'Equalize': None,
    'Invert': None,
    'Posterize': 'bits',
    'Rotate': 'angle',
    'Sharpness': 'magnitude',
    'Shear': 'magnitude',
    'Solarize': 'thr',
    'SolarizeAdd': 'magnitude',
    'Translate': 'magnitude',
}
#: Values of these attributes at which the image does not change; 0 for all others.
_NEUTRAL = {'bits': 8, 'thr': 256}


class Phase(NamedTuple):
    """One phase of a curriculum.

    Attributes:
        begin: First epoch, counted from 0.
        resolution: Side of the square training images in pixels; None does not change it.
        strength: Factor of the augmentation magnitudes, 0 to 1; None does not change them.
    """

    begin: int
    resolution: int | None = None
    strength: float | None = None

    def __str__(self) -> str:
        parts = []
        if self.resolution is not None:
            parts.append(f'{self.resolution} px')
        if self.strength is not None:
            parts.append(f'strength {self.strength}')
        return ', '.join(parts)


def read_phases(phases: Sequence[Mapping[str, Any]]) -> tuple[Phase, ...]:
    """Read phases from a config.

    Raises:
        ValueError: Naming the phase, the key, what came and what is allowed.
    """
    if not isinstance(phases, (list, tuple)) or not phases:
        raise ValueError(f'phases: got {phases!r}; expected a list of dicts')
    found = tuple(_read_phase(f'phases.{i}', phase) for i, phase in enumerate(phases))
    if found[0].begin != 0:
        raise ValueError(f'phases.0.begin: got {found[0].begin}; expected 0 for the first phase')
    for index, (before, after) in enumerate(pairwise(found), 1):
        where = f'phases.{index}'
        if after.begin <= before.begin:
            raise ValueError(
                f'{where}.begin: got {after.begin}; expected more than in the phase before '
                f'({before.begin})'
            )
        for key in _KEYS[1:]:
            if (getattr(before, key) is None) != (getattr(after, key) is None):
                raise ValueError(f'{where}.{key}: set it in all phases or in none')
        if after[1:] == before[1:]:
            raise ValueError(f'{where}: equals the phase before; remove it')
    return found


def _read_phase(where: str, phase: Any) -> Phase:
    if not isinstance(phase, Mapping):
        raise ValueError(f'{where}: got {phase!r}; expected a dict')
    for key in phase:
        if key not in _KEYS:
            raise ValueError(f"{where}: unknown key '{key}'; expected {', '.join(_KEYS)}")
    if 'begin' not in phase or len(phase) < 2:
        raise ValueError(
            f'{where}: got {phase!r}; expected begin, and resolution or strength or both'
        )
    begin, resolution, strength = (phase.get(key) for key in _KEYS)
    if type(begin) is not int or begin < 0:
        raise ValueError(f'{where}.begin: got {begin!r}; expected an epoch, an integer from 0')
    if resolution is not None and (type(resolution) is not int or resolution < 1):
        raise ValueError(f'{where}.resolution: got {resolution!r}; expected a number of pixels')
    if strength is not None and (type(strength) not in (int, float) or not 0 <= strength <= 1):
        raise ValueError(f'{where}.strength: got {strength!r}; expected 0 to 1')
    return Phase(begin, resolution, strength)


def check_total(phases: Sequence[Phase], total: int | None) -> None:
    """Check the number of epochs that the phases refer to; a ValueError names what is wrong."""
    if total is None:
        return
    if type(total) is not int or total < 1:
        raise ValueError(f'total: got {total!r}; expected a number of epochs, an integer from 1')
    for index, phase in enumerate(phases):
        if phase.begin >= total:
            raise ValueError(
                f'phases.{index}.begin: got {phase.begin}; expected less than total ({total})'
            )


def first_epochs(phases: Sequence[Phase], total: int | None, max_epochs: int) -> list[int]:
    """Return the first epoch of each phase in a run of ``max_epochs``, counted from 0.

    Phases that refer to ``total`` epochs are scaled in proportion, rounded to whole epochs, with at
    least one epoch each. A ValueError names a phase that would begin after the end.
    """
    begins: list[int] = []
    for index, phase in enumerate(phases):
        begin = phase.begin
        if total is not None:
            begin = math.floor(begin * max_epochs / total + 0.5)
            begin = max(begin, begins[-1] + 1) if begins else begin
        if begin >= max_epochs:
            raise ValueError(
                f'phases.{index}: would begin at epoch {begin + 1} of a run of {max_epochs}; remove '
                'it, or train longer'
            )
        begins.append(begin)
    return begins


class Phased(BaseTransform):
    """Apply one of several transforms, selected by a number in shared memory.

    Data-loader workers have copies of the pipeline, and persistent workers keep them. They all read
    ``index``, an integer tensor of one element, which the main process writes.
    """

    def __init__(self, variants: Sequence[Any], index: Tensor) -> None:
        self.variants = tuple(variants)
        self.index = index

    def __iter__(self) -> Iterator[Any]:
        return iter(self.variants)  # mmcv iterates over a transform to find random methods

    def transform(self, results: dict) -> dict | None:
        """Apply the transform of the current phase."""
        return self.variants[int(self.index)](results)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.variants[int(self.index)]!r})'


def install(dataset: Any, phases: Sequence[Phase], index: Tensor) -> tuple[int, int]:
    """Replace transforms of a dataset, also of one inside wrappers, by ones that follow ``index``.

    Returns the number of transforms that change with the resolution, and with the strength. An
    augmentation whose magnitude is not known here is a ValueError.
    """
    counts = [0, 0]
    for inner in datasets_inside(dataset):
        for owner, place, transform in _places(inner.pipeline):
            kind = 0 if _has_square_scale(transform) else 1 if _has_strength(transform) else None
            if kind is None or phases[0][kind + 1] is None:
                continue
            change: Any = _resized if kind == 0 else weakened
            owner[place] = Phased([change(transform, phase[kind + 1]) for phase in phases], index)
            counts[kind] += 1
    return counts[0], counts[1]


def weakened(transform: Any, strength: float) -> Any:
    """Return a copy of mmpretrain's AutoAugment or RandAugment with smaller magnitudes.

    The strength multiplies the magnitudes. For Solarize it multiplies the distance of the threshold
    from 256, for Posterize the number of removed bits (rounded). AutoContrast, Equalize and Invert
    have no magnitude; an unknown augmentation is a ValueError.
    """
    copied = copy.deepcopy(transform)
    for _, _, part in _places(copied):
        if hasattr(part, 'transforms'):
            continue
        name = type(part).__name__
        if getattr(part, 'magnitude_range', None) is not None:
            part.magnitude_level *= strength
        elif name not in _MAGNITUDES:
            raise ValueError(f'{type(transform).__name__}: {name} has no known magnitude')
        elif (setting := _MAGNITUDES[name]) is not None:
            whole = getattr(part, setting)
            value = whole + (1 - strength) * (_NEUTRAL.get(setting, 0) - whole)
            setattr(part, setting, round(value) if setting == 'bits' else value)
    return copied


def _resized(transform: Any, resolution: int) -> Any:
    copied = copy.copy(transform)
    copied.scale = (resolution, resolution)
    return copied


def _has_square_scale(transform: Any) -> bool:
    """Return whether this transform makes every image a square of one size."""
    scale = getattr(transform, 'scale', None)
    kinds = {kind.__name__ for kind in type(transform).__mro__}
    resizes = 'RandomResizedCrop' in kinds or (
        'Resize' in kinds and not getattr(transform, 'keep_ratio', False)
    )
    return resizes and isinstance(scale, (list, tuple)) and len(set(scale)) == 1


def _has_strength(transform: Any) -> bool:
    return any(
        kind.__name__ in ('AutoAugment', 'RandAugment')
        and kind.__module__.startswith('mmpretrain.')
        for kind in type(transform).__mro__
    )


def _places(node: Any) -> Iterator[tuple[list, int, Any]]:
    """Yield every transform in a pipeline or a wrapper of transforms, with its list and position."""
    held = node if isinstance(node, list) else getattr(node, 'transforms', None)
    if not isinstance(held, list):
        if held is not None:
            yield from _places(held)
        return
    for place, transform in enumerate(held):
        yield held, place, transform
        yield from _places(transform)
