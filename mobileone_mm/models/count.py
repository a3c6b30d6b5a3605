"""Parameters and MACs of any size, in closed form: nothing is built and nothing is run."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from .sizes import Arch, get_arch

#: A whole number, or an array of them: the formulas hold for both (``micro_search`` uses arrays).
Whole: TypeAlias = Any


class Counts(NamedTuple):
    """What :func:`count` returns.

    Attributes:
        parameters_fused: Weights and biases of the deploy form.
        parameters_unfused: Those of the training form, without BN's running statistics.
        macs: Multiply-adds of the deploy form for one image. Biases, activations and pooling are
            not counted, as in the paper's "FLOPs".
    """

    parameters_fused: Whole
    parameters_unfused: Whole
    macs: Whole


class Unit(NamedTuple):
    """One unit of the backbone as the formulas see it.

    Attributes:
        in_channels: Channels of the input; a depthwise unit has as many outputs.
        out_channels: Channels of the output.
        kernel_size: 3 (stem and depthwise) or 1 (pointwise).
        depthwise: Whether each output channel sees one input channel only.
        branches: Conv-BN branches with the full kernel (the paper's k).
        identity: Whether the training form has the identity BN.
        with_se: Whether squeeze-and-excitation follows.
        pixels: Positions of the output.
    """

    in_channels: Whole
    out_channels: Whole
    kernel_size: int
    depthwise: bool
    branches: int
    identity: Whole
    with_se: bool
    pixels: int


def count(
    arch: str | Mapping[str, Any] | Arch,
    num_classes: int = 1000,
    input_size: int | Sequence[int] = 224,
    in_channels: int = 3,
) -> Counts:
    """Count a backbone of stride 32 with a linear classifier on its last stage.

    A unit with kernel K, C inputs and D outputs at P positions has W weights: K·K·D if depthwise,
    else K·K·C·D. It contributes:

    - fused parameters: W + D;
    - unfused: k·(W + 2D) for its k conv-BN branches; W/K² + 2D more for the 1x1 branch if K > 1;
      2C more for the identity BN if there is one;
    - MACs: W·P;
    - with squeeze-and-excitation of hidden width H: 2DH + H + D parameters to both forms, 2DH MACs.

    The classifier of N classes on D channels adds (D + 1)·N parameters and D·N MACs.

    Args:
        arch: A name, a dict or an :class:`~mobileone_mm.models.sizes.Arch`.
        num_classes: Outputs of the classifier; 0 counts the backbone alone.
        input_size: Height and width of the image, or one number for both.
        in_channels: Channels of the image.

    Raises:
        TypeError, ValueError: ``arch`` is not one, or a number is too small.
    """
    _check_whole('num_classes', num_classes, 0)
    _check_whole('in_channels', in_channels, 1)
    arch = get_arch(arch)
    units = list_units(
        (arch.stem_channels, *arch.channels),
        arch.num_blocks,
        arch.num_conv_branches,
        arch.num_se_blocks,
        _height_and_width(input_size),
        in_channels,
    )
    return count_units(units, num_classes)


def list_units(
    channels: Sequence[Whole],
    num_blocks: Sequence[int],
    num_conv_branches: Sequence[int] = (1, 1, 1, 1),
    num_se_blocks: Sequence[int] = (0, 0, 0, 0),
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
) -> list[Unit]:
    """The units of a backbone in their order: the stem, then depthwise and pointwise in turn.

    Args:
        channels: Output channels of the stem and of the four stages.
        num_blocks: Blocks of each stage.
        num_conv_branches: k of each stage; the stem has one branch in every size.
        num_se_blocks: Blocks with squeeze-and-excitation at the end of each stage.
        size: Height and width of the image.
        in_channels: Channels of the image.
    """
    # Kernel 3, padding 1 and stride 2 halve a side and round up.
    height, width = (math.ceil(side / 2) for side in size)
    units = [Unit(in_channels, channels[0], 3, False, 1, False, False, height * width)]
    stages = zip(num_blocks, num_conv_branches, num_se_blocks, strict=True)
    for stage, (blocks, branches, se_blocks) in enumerate(stages):
        before, after = channels[stage], channels[stage + 1]
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        for block in range(blocks):
            shared = branches, block > 0, block >= blocks - se_blocks, height * width
            units.append(Unit(before, before, 3, True, *shared))
            units.append(Unit(before, after, 1, False, *shared)._replace(identity=before == after))
            before = after
    return units


def count_units(units: Sequence[Unit], num_classes: int) -> Counts:
    """Sum units, and a linear classifier on the last one; the formulas are those of :func:`count`."""
    features = units[-1].out_channels
    fused = unfused = (features + 1) * num_classes
    macs = features * num_classes
    for unit in units:
        inputs, outputs = unit.in_channels, unit.out_channels
        pointwise = outputs if unit.depthwise else inputs * outputs
        weights = unit.kernel_size**2 * pointwise
        fused = fused + weights + outputs
        unfused = unfused + unit.branches * (weights + 2 * outputs) + unit.identity * 2 * inputs
        macs = macs + weights * unit.pixels
        if unit.kernel_size > 1:
            unfused = unfused + pointwise + 2 * outputs
        if unit.with_se:
            hidden = squeeze_channels(outputs)
            fused, unfused = (n + (2 * outputs + 1) * hidden + outputs for n in (fused, unfused))
            macs = macs + 2 * outputs * hidden
    return Counts(fused, unfused, macs)


def squeeze_channels(channels: int, ratio: int = 16) -> int:
    """Hidden width of squeeze-and-excitation.

    ``channels // ratio``, rounded to the nearest multiple of 8, at least 8 and not more than a tenth
    below, as in mmpretrain; for S4 this is the paper's width.
    """
    hidden = max(8, (channels // ratio + 4) // 8 * 8)
    return hidden if hidden >= 0.9 * (channels // ratio) else hidden + 8


def _height_and_width(input_size: int | Sequence[int]) -> tuple[int, int]:
    sides: Any = [input_size] * 2 if isinstance(input_size, numbers.Integral) else input_size
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != 2:
        raise TypeError(
            f'input_size: got {input_size!r}; a whole number or (height, width) is needed'
        )
    for side in sides:
        _check_whole('input_size', side, 1)
    return sides[0], sides[1]


def _check_whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f'{name}: got {value!r}; a whole number of at least {low} is needed')
    if value < low:
        raise ValueError(f'{name}: got {value}; at least {low} is needed')
