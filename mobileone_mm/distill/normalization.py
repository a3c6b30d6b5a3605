"""The normalisation of data preprocessors, and the conversion of a batch from one to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError


@dataclass(frozen=True)
class Normalization:
    """How a data preprocessor changes a loaded image (BGR, 0 to 255)."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # by channel, in the order after to_rgb
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    to_rgb: bool = False  # whether BGR becomes RGB
    KEYS: ClassVar = ('mean', 'std', 'to_rgb')

    @classmethod
    def of(
        cls,
        preprocessor: Any,
        default: Normalization | None = None,
        path: str = 'data_preprocessor',
    ) -> Normalization:
        """Read a built preprocessor or the config of one; what it lacks is that of the default.

        A wrong value of a config is an InputError that begins with ``path``.
        """
        if isinstance(preprocessor, nn.Module):
            given = {key: getattr(preprocessor, key, None) for key in cls.KEYS}
            if getattr(preprocessor, '_channel_conversion', False):
                given['to_rgb'] = True
        else:
            _check(path, preprocessor)
            given = {key: preprocessor.get(key) for key in cls.KEYS}
        for key in ('mean', 'std'):
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


def _check(path: str, settings: Any) -> None:
    """Check ``mean`` and ``std`` (both or neither, three channels) and ``to_rgb``."""
    if not isinstance(settings, Mapping):
        expected = ', '.join(Normalization.KEYS)
        raise InputError(f'{path}: got {settings!r}; expected a dict with {expected}')
    for key, above, what in (('mean', -math.inf, ''), ('std', 0, ' above 0')):
        value: Any = settings.get(key)
        triple = isinstance(value, Sequence) and len(value) == 3
        numbers = triple and all(type(n) in (int, float) and above < n < math.inf for n in value)
        if value is not None and not numbers:
            raise InputError(f'{path}.{key}: got {value!r}; expected a list of 3 numbers{what}')
    given = [key for key in ('mean', 'std') if settings.get(key) is not None]
    if len(given) == 1:
        absent = 'std' if given == ['mean'] else 'mean'
        raise InputError(f'{path}: has {given[0]} without {absent}; set both, or neither')
    to_rgb = settings.get('to_rgb')
    if to_rgb is not None and not isinstance(to_rgb, bool):
        raise InputError(f'{path}.to_rgb: got {to_rgb!r}; expected True or False')
