"""Sizes of MobileOne, as a table of data.

S0 to S4 are the paper's (arXiv 2206.04040, table 2). The widths of the paper's micro models are not
public: ``mu0``, ``mu1`` and ``mu2`` are **this project's reconstruction**, found by
``tools/analysis_tools/search_micro.py`` from the published parameters and MACs (docs/micro_models.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

BASE_CHANNELS = (64, 128, 256, 512)
NUM_STAGES = len(BASE_CHANNELS)


@dataclass(frozen=True)
class Arch:
    """One size: four stages after a stem of one dense 3x3 unit.

    A block is a depthwise 3x3 unit followed by a pointwise 1x1 unit. The field names are those of
    mmpretrain's ``arch`` dict.

    Attributes:
        num_blocks: Blocks of each stage, at least 1.
        width_factor: Multiplier of the base channels (64, 128, 256, 512) of each stage.
        num_conv_branches: Conv-BN branches of each unit of a stage (the paper's k), at least 1.
        num_se_blocks: Blocks at the end of each stage whose two units have squeeze-and-excitation.
    """

    num_blocks: tuple[int, ...]
    width_factor: tuple[float, ...]
    num_conv_branches: tuple[int, ...] = (1, 1, 1, 1)
    num_se_blocks: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of the four stages."""
        pairs = zip(BASE_CHANNELS, self.width_factor, strict=True)
        return tuple(int(base * factor) for base, factor in pairs)

    @property
    def stem_channels(self) -> int:
        """Output channels of the stem: the first stage's, at most 64."""
        return min(64, self.channels[0])


ARCHS: dict[str, Arch] = {
    's0': Arch((2, 8, 10, 1), (0.75, 1.0, 1.0, 2.0), num_conv_branches=(4, 4, 4, 4)),
    's1': Arch((2, 8, 10, 1), (1.5, 1.5, 2.0, 2.5)),
    's2': Arch((2, 8, 10, 1), (1.5, 2.0, 2.5, 4.0)),
    's3': Arch((2, 8, 10, 1), (2.0, 2.5, 3.0, 4.0)),
    's4': Arch((2, 8, 10, 1), (3.0, 3.5, 3.5, 4.0), num_se_blocks=(0, 0, 5, 1)),
    # our reconstruction
    'mu0': Arch((2, 4, 6, 1), (0.625, 0.625, 0.5, 0.75), num_conv_branches=(3, 3, 3, 3)),
    'mu1': Arch((2, 4, 6, 1), (0.75, 0.75, 1.0, 0.875), num_conv_branches=(3, 3, 3, 3)),
    'mu2': Arch((2, 4, 6, 1), (1.125, 0.875, 1.25, 1.0), num_conv_branches=(3, 3, 3, 3)),
}


def get_arch(arch: str | Mapping[str, Any] | Arch) -> Arch:
    """Look a size up by name, or check one given as a dict.

    Args:
        arch: A name, an :class:`Arch`, or a dict with its fields; the last two fields may be left
            out (one conv branch, no SE).

    Raises:
        TypeError: ``arch`` is neither, or a field has the wrong type.
        ValueError: The name, a key or a value is not allowed.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, str):
        if arch.lower() not in ARCHS:
            raise ValueError(
                f"arch: got '{arch}'; choose one of {', '.join(ARCHS)}, or give a dict with the keys "
                f'{", ".join(_KEYS)}'
            )
        return ARCHS[arch.lower()]
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch: got {type(arch).__name__}; a name or a dict is needed')
    unknown, missing = set(arch) - set(_KEYS), {'num_blocks', 'width_factor'} - set(arch)
    if unknown or missing:
        problem = f'unknown key {sorted(unknown)[0]!r}' if unknown else f'no {sorted(missing)[0]!r}'
        raise ValueError(f'arch: {problem}; the keys are {", ".join(_KEYS)}')
    checked = Arch(**{key: _four(key, value) for key, value in arch.items()})
    _check_values(checked)
    return checked


_KEYS = tuple(field.name for field in fields(Arch))


def _four(key: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f'arch.{key}: got {value!r}; a list of {NUM_STAGES} numbers is needed')
    if len(value) != NUM_STAGES:
        raise ValueError(
            f'arch.{key}: got {len(value)} values; {NUM_STAGES} are needed, one a stage'
        )
    kinds = (int, float) if key == 'width_factor' else (int,)
    if any(not isinstance(v, kinds) or isinstance(v, bool) for v in value):
        name = 'numbers' if key == 'width_factor' else 'integers'
        raise TypeError(f'arch.{key}: got {list(value)}; {name} are needed')
    if not all(math.isfinite(v) for v in value):
        raise ValueError(f'arch.{key}: got {list(value)}; finite numbers are needed')
    return tuple(value)


def _check_values(arch: Arch) -> None:
    for key, low in (('num_blocks', 1), ('num_conv_branches', 1), ('num_se_blocks', 0)):
        if min(getattr(arch, key)) < low:
            raise ValueError(
                f'arch.{key}: got {list(getattr(arch, key))}; at least {low} is needed'
            )
    if min(arch.channels) < 1:
        raise ValueError(
            f'arch.width_factor: got {list(arch.width_factor)}, which makes {list(arch.channels)} '
            'channels; each stage needs at least one'
        )
    if any(se > blocks for se, blocks in zip(arch.num_se_blocks, arch.num_blocks, strict=True)):
        raise ValueError(
            f'arch.num_se_blocks: got {list(arch.num_se_blocks)}; at most the blocks of the stage, '
            f'{list(arch.num_blocks)}'
        )
