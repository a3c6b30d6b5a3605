"""The normalisation of data preprocessors, and the conversion of a batch from one to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

KEYS = ('mean', 'std', 'to_rgb')


@dataclass(frozen=True)
class Normalization:
    """How a data preprocessor changes a loaded image (BGR, 0 to 255)."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # by channel, in the order after to_rgb
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    to_rgb: bool = False  # whether BGR becomes RGB

    @classmethod
    def of(cls, preprocessor: Any, default: Normalization | None = None) -> Normalization:
        """Read a built preprocessor or the config of one; what it lacks is that of the default."""
        config = isinstance(preprocessor, Mapping)
        given = {k: preprocessor.get(k) if config else getattr(preprocessor, k, None) for k in KEYS}
        if getattr(preprocessor, '_channel_conversion', False):
            given['to_rgb'] = True
        for key in KEYS[:2]:
            if given[key] is not None:
                given[key] = tuple(torch.as_tensor(given[key]).double().flatten().tolist())
        return replace(default or cls(), **{k: v for k, v in given.items() if v is not None})

    def renormalized(self, inputs: Tensor, wanted: Normalization) -> Tensor:
        """Convert a batch (N x 3 x height x width) to another normalisation."""
        if wanted == self:
            return inputs
        values = self.mean, self.std, wanted.mean, wanted.std
        mean, std, new_mean, new_std = (inputs.new_tensor(v).view(1, -1, 1, 1) for v in values)
        raw = inputs * std + mean
        raw = raw.flip(1) if wanted.to_rgb != self.to_rgb else raw
        return (raw - new_mean) / new_std


def check_normalization(path: str, settings: Any, open_ended: bool = False) -> None:
    """Check ``mean`` and ``std`` (both or neither, three channels) and ``to_rgb``.

    With ``open_ended`` other keys are allowed, as in the data preprocessor of a host.

    Raises:
        InputError: A key is unknown or its value is wrong.
    """
    if not isinstance(settings, Mapping):
        raise InputError(f'{path}: got {settings!r}; expected a dict with {", ".join(KEYS)}')
    for key in () if open_ended else settings:
        if key not in KEYS:
            raise InputError(f"{path}: has no '{key}'; {', '.join(KEYS)} are allowed")
    mean, std, to_rgb = (settings.get(key) for key in KEYS)
    for key, value, above, what in (('mean', mean, -math.inf, ''), ('std', std, 0, ' above 0')):
        if value is not None and not _is_triple(value, above):
            raise InputError(f'{path}.{key}: got {value!r}; expected a list of 3 numbers{what}')
    if (mean is None) != (std is None):
        given, absent = ('mean', 'std') if std is None else ('std', 'mean')
        raise InputError(f'{path}: has {given} without {absent}; set both, or neither')
    if to_rgb is not None and not isinstance(to_rgb, bool):
        raise InputError(f'{path}.to_rgb: got {to_rgb!r}; expected True or False')


def _is_triple(value: Any, above: float) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 3
        and all(isinstance(n, (int, float)) and type(n) is not bool for n in value)
        and all(above < n < math.inf for n in value)
    )
