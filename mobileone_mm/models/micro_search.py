"""The search that found ``mu0``, ``mu1`` and ``mu2``, our reconstruction of the micro models.

The paper (arXiv 2206.04040) gives parameters and MACs of its micro models, not their widths. The search
tries all small networks of the family for three that have the figures and a common shape similar to S0
(docs/micro_models.md). It is deterministic.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from .sizes import ARCHS, BASE_CHANNELS, Arch

#: Conv branches (k) of every unit. The published figures are those of the deploy form, which does not
#: depend on k, so no search can find it. docs/micro_models.md gives the reason for 3.
NUM_CONV_BRANCHES = 3


#: largest ratio of the channels of a stage to those of the one before, as in S0 to S4
MAX_GROWTH = 4.0
TOLERANCE = 0.02  # largest relative deviation from each published figure


class Target(NamedTuple):
    """Published figures of one micro model, and the unit of the last printed digit of each."""

    parameters: float
    macs: float
    parameters_digit: float
    macs_digit: float = 1e6


TARGETS: dict[str, Target] = {
    'mu0': Target(0.57e6, 68e6, parameters_digit=0.01e6),
    'mu1': Target(0.98e6, 139e6, parameters_digit=0.01e6),
    'mu2': Target(1.3e6, 214e6, parameters_digit=0.1e6),
}


class Criteria(NamedTuple):
    """Conditions on a family of three, in addition to the fixed rules of :func:`search`."""

    step: float = 0.125  # width factors are multiples of this, up to S0's largest (2); above 0
    min_growth: float = 1.5  # smallest such ratio of channels
    as_printed: bool = True  # whether the figures must also round to the printed ones


class Family(NamedTuple):
    """Three sizes by name, with one depth pattern."""

    archs: dict[str, Arch]
    worst_error: float  # their largest relative deviation
    num_blocks: tuple[int, ...]  # of each stage, the same for all three sizes


def search(criteria: Criteria | None = None) -> list[Family]:
    """Return all families that satisfy the criteria, those closest to the published figures first.

    Fixed rules: one depth pattern for all three, in no stage deeper than S0, most blocks at stride 16,
    one block at stride 32, at least as many blocks in stage 1 as in stage 0; no SE; channels are
    multiples of 8; no stage of a larger model is narrower than that of a smaller one.

    A criterion outside its range is an InputError.
    """
    criteria = criteria or Criteria()
    _check(criteria)
    steps = np.arange(1, int(max(ARCHS['s0'].width_factor) / criteria.step) + 1) * criteria.step
    factors: Any = np.stack(np.meshgrid(*[steps] * 4), axis=-1).reshape(-1, 4)
    growth = (factors * BASE_CHANNELS)[:, 1:] / (factors * BASE_CHANNELS)[:, :-1]
    factors = factors[((growth >= criteria.min_growth) & (growth <= MAX_GROWTH)).all(1)]
    families = []
    limits = ARCHS['s0'].num_blocks
    for num_blocks in product(*(range(1, limit + 1) for limit in limits)):
        if not (num_blocks[0] <= num_blocks[1] < num_blocks[2] and num_blocks[3] == 1):
            continue
        channels = (factors * BASE_CHANNELS).astype(np.int64).T
        counts = closed_form((np.minimum(64, channels[0]), *channels), num_blocks)
        fitting = [factors[_fits(counts, target, criteria)] for target in TARGETS.values()]
        for members in _nested(*fitting):
            archs = {
                name: Arch(num_blocks, tuple(map(float, row)), (NUM_CONV_BRANCHES,) * 4)
                for name, row in zip(TARGETS, members, strict=True)
            }
            worst = max(max(deviations(name, arch)) for name, arch in archs.items())
            families.append(Family(archs, worst, num_blocks))
    return sorted(families, key=lambda family: family.worst_error)


def deviations(name: str, arch: Arch) -> tuple[float, float]:
    """Return the relative deviations of fused parameters and MACs from the published ``name``."""
    parameters, macs = closed_form((arch.stem_channels, *arch.channels), arch.num_blocks)
    target = TARGETS[name]
    return abs(parameters / target.parameters - 1), abs(macs / target.macs - 1)


def closed_form(channels: Sequence[Any], num_blocks: Sequence[int]) -> tuple[Any, Any]:
    """Return parameters and MACs of deploy forms without SE, at 224 px with 1000 classes.

    A unit with kernel size K, C input channels, D output channels and P output pixels has W weights:
    K·K·D if depthwise, else K·K·C·D. It has W + D parameters and W·P MACs. ``channels`` are the outputs
    of the stem and of the four stages: integers, or integer arrays to count many networks at once.
    """
    side, before = 112, channels[0]
    parameters, macs = 27 * before + before, 27 * before * side**2
    for blocks, after in zip(num_blocks, channels[1:], strict=True):
        side //= 2
        for _ in range(blocks):
            weights = 9 * before + before * after
            parameters = parameters + weights + before + after
            macs = macs + weights * side**2
            before = after
    return parameters + (before + 1) * 1000, macs + before * 1000


def _check(criteria: Criteria) -> None:
    if criteria.step <= 0 or any((base * criteria.step) % 8 for base in BASE_CHANNELS):
        raise InputError(
            f'step: got {criteria.step}; expected a positive multiple of 0.125, so that all channels '
            'are multiples of 8'
        )
    if not 0 < criteria.min_growth <= MAX_GROWTH:
        raise InputError(
            f'min_growth: got {criteria.min_growth}; expected a number above 0, at most {MAX_GROWTH}'
        )


def _fits(counts: tuple[Any, Any], target: Target, criteria: Criteria) -> np.ndarray:
    """Return which networks have the published figures: (number,) of bool."""
    fits = np.ones(counts[0].shape, dtype=bool)
    published = (target.parameters, target.parameters_digit), (target.macs, target.macs_digit)
    for found, (figure, digit) in zip(counts, published, strict=True):
        fits &= np.abs(found / figure - 1) <= TOLERANCE
        if criteria.as_printed:
            fits &= np.abs(found - figure) < digit / 2
    return fits


def _nested(small: np.ndarray, middle: np.ndarray, large: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Yield one row of each array such that no stage becomes narrower."""
    for row in middle:
        yield from product(small[(small <= row).all(1)], [row], large[(large >= row).all(1)])
