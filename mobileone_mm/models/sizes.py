"""The sizes of MobileOne as a table.

S0 to S4 are the paper's (arXiv 2206.04040, table 2). The widths of the paper's micro models are not
public: ``mu0``, ``mu1`` and ``mu2`` are **this project's reconstruction**.
``tools/analysis_tools/search_micro.py`` finds them from the published parameters and MACs
(docs/micro_models.md).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .argument_checks import check_integers, check_sequence

BASE_CHANNELS = (64, 128, 256, 512)
NUM_STAGES = len(BASE_CHANNELS)


@dataclass(frozen=True)
class Arch:
    """One size: a stem of one dense 3x3 unit, then four stages.

    A block is a depthwise 3x3 unit followed by a pointwise 1x1 unit. The field names are those of
    mmpretrain's ``arch`` dict; each has one value for each stage.
    """

    num_blocks: tuple[int, ...]  # at least 1
    width_factor: tuple[float, ...]  # multiplier of the base channels (64, 128, 256, 512)
    num_conv_branches: tuple[int, ...] = (1, 1, 1, 1)  # of each unit (the paper's k), at least 1
    #: blocks at the end of each stage with squeeze-and-excitation in both units
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
    # this project's reconstruction
    'mu0': Arch((2, 4, 6, 1), (0.625, 0.625, 0.5, 0.75), num_conv_branches=(3, 3, 3, 3)),
    'mu1': Arch((2, 4, 6, 1), (0.75, 0.75, 1.0, 0.875), num_conv_branches=(3, 3, 3, 3)),
    'mu2': Arch((2, 4, 6, 1), (1.125, 0.875, 1.25, 1.0), num_conv_branches=(3, 3, 3, 3)),
}


def get_arch(arch: str | Mapping[str, Any] | Arch) -> Arch:
    """Return the size of a name, or of a dict with the fields of :class:`Arch`, which is checked."""
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, str):
        if arch.lower() not in ARCHS:
            raise ValueError(
                f"arch: got '{arch}'; expected one of {', '.join(ARCHS)}, or a dict with the keys "
                f'{", ".join(_KEYS)}'
            )
        return ARCHS[arch.lower()]
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch: got {type(arch).__name__}; expected a name or a dict')
    unknown, missing = set(arch) - set(_KEYS), {'num_blocks', 'width_factor'} - set(arch)
    if unknown or missing:
        key = sorted(unknown or missing)[0]
        problem = f'{"unknown" if unknown else "missing"} key {key!r}'
        raise ValueError(f'arch: {problem}; expected the keys {", ".join(_KEYS)}')
    checked = Arch(**{key: _read_field(key, value) for key, value in arch.items()})
    pairs = zip(checked.num_se_blocks, checked.num_blocks, strict=True)
    if any(se > blocks for se, blocks in pairs):
        raise ValueError(
            f'arch.num_se_blocks: got {list(checked.num_se_blocks)}; expected at most the blocks of '
            f'each stage, {list(checked.num_blocks)}'
        )
    return checked


_KEYS = tuple(field.name for field in fields(Arch))


def _read_field(key: str, value: Any) -> tuple[Any, ...]:
    name = f'arch.{key}'
    if key != 'width_factor':
        return check_integers(name, value, NUM_STAGES, 0 if key == 'num_se_blocks' else 1)
    values = check_sequence(name, value, NUM_STAGES)
    if any(not isinstance(v, (int, float)) or isinstance(v, bool) for v in values):
        raise TypeError(f'{name}: got {list(values)}; expected numbers')
    if not all(1 / 64 <= v < math.inf for v in values):  # of at least 64 channels
        raise ValueError(f'{name}: got {list(values)}; expected finite numbers of at least 1/64')
    return tuple(values)
