"""What data preprocessors make of a loaded image, and the step from one to another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

KEYS = ('mean', 'std', 'to_rgb')
_CHANNELS = 3


@dataclass(frozen=True)
class Normalization:
    """What a data preprocessor makes of a loaded image (BGR, 0 to 255).

    Attributes:
        mean: One number a channel, in the order after ``to_rgb``.
        std: The same.
        to_rgb: Whether the channels are turned round.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    to_rgb: bool = False

    @classmethod
    def of(cls, preprocessor: Any) -> Normalization:
        """That of a built preprocessor, or of the config of one."""
        given = (
            {key: preprocessor.get(key) for key in KEYS}
            if isinstance(preprocessor, Mapping)
            else {key: getattr(preprocessor, key, None) for key in KEYS}
        )
        to_rgb = bool(given['to_rgb'] or getattr(preprocessor, '_channel_conversion', False))
        if given['mean'] is None or given['std'] is None:
            return cls(to_rgb=to_rgb)
        mean, std = (
            tuple(float(number) for number in torch.as_tensor(given[key]).flatten())
            for key in ('mean', 'std')
        )
        return cls(mean, std, to_rgb)

    def changed(self, settings: Mapping[str, Any]) -> Normalization:
        """This one with the settings that :func:`check_normalization` has let pass in its place."""
        given = {key: settings[key] for key in KEYS if settings.get(key) is not None}
        for key in set(given) & {'mean', 'std'}:
            given[key] = tuple(float(number) for number in given[key])
        return replace(self, **given)

    def renormalized(self, inputs: Tensor, wanted: Normalization) -> Tensor:
        """A batch of this normalisation in another one; N x 3 x height x width."""
        if wanted == self:
            return inputs
        mean, std = (inputs.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        raw = inputs * std + mean
        if wanted.to_rgb != self.to_rgb:
            raw = raw.flip(1)
        mean, std = (inputs.new_tensor(v).view(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
        return (raw - mean) / std


def check_normalization(path: str, settings: Any, open_ended: bool = False) -> None:
    """Check the settings of a normalisation.

    Args:
        path: What the user calls them.
        settings: ``mean``, ``std`` (both or neither, for three channels) and ``to_rgb``; what is
            absent or None is left alone.
        open_ended: Whether other keys may stand beside them, as in a host's data preprocessor.

    Raises:
        InputError: Naming the key, what came and what is allowed.
    """
    if not isinstance(settings, Mapping):
        raise InputError(f'{path}: got {settings!r}; a dict with {", ".join(KEYS)} is needed')
    for key in () if open_ended else settings:
        if key not in KEYS:
            raise InputError(f"{path}: has no '{key}'; {', '.join(KEYS)} are allowed")
    mean, std, to_rgb = (settings.get(key) for key in KEYS)
    for key, value, what in (('mean', mean, ''), ('std', std, ' above 0')):
        if value is not None and not _is_triple(value, positive=key == 'std'):
            raise InputError(
                f'{path}.{key}: got {value!r}; a list of {_CHANNELS} numbers{what} is needed'
            )
    if (mean is None) != (std is None):
        there, absent = ('mean', 'std') if std is None else ('std', 'mean')
        raise InputError(f'{path}: has {there} without {absent}; set both, or neither')
    if to_rgb is not None and not isinstance(to_rgb, bool):
        raise InputError(f'{path}.to_rgb: got {to_rgb!r}; True or False is needed')


def _is_triple(value: Any, positive: bool) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == _CHANNELS
        and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in value)
        and all(math.isfinite(n) and (n > 0 or not positive) for n in value)
    )
