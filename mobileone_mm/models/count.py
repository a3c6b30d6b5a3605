"""Parameters and MACs of any size in closed form, without building or running a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from .arguments import check_integer, check_sequence, is_integer
from .sizes import Arch, get_arch, squeeze_channels

#: An integer, or an integer array (``micro_search`` counts many networks at once).
Integer: TypeAlias = Any


class Counts(NamedTuple):
    """The result of :func:`count`.

    MACs are those of one image, without biases, activations and pooling, as in the paper's "FLOPs".
    """

    parameters_fused: Integer  # weights and biases of the deploy form
    parameters_unfused: Integer  # of the training form, without running statistics
    macs: Integer  # multiply-adds of the deploy form


class Unit(NamedTuple):
    """The properties of one unit that the formulas use."""

    in_channels: Integer
    out_channels: Integer  # of a depthwise unit: `in_channels`
    kernel_size: int  # 3 (stem and depthwise) or 1 (pointwise)
    depthwise: bool
    branches: int  # conv-BN branches with the full kernel (the paper's k)
    identity: Any  # whether the training form has the identity branch; an array of bool for arrays
    with_se: bool
    pixels: int  # height times width of the output


def count(
    arch: str | Mapping[str, Any] | Arch,
    num_classes: int = 1000,
    input_size: int | Sequence[int] = 224,
    in_channels: int = 3,
) -> Counts:
    """Count a backbone of stride 32 and a linear classifier on its last stage.

    A unit with kernel size K, C input channels, D output channels and P output pixels has W weights:
    K·K·D if depthwise, else K·K·C·D. It contributes:

    - fused parameters: W + D;
    - unfused parameters: k·(W + 2D) for its k conv-BN branches, W/K² + 2D for the scale branch if
      K > 1, 2C for the identity branch if there is one;
    - MACs: W·P;
    - with squeeze-and-excitation of hidden width H: 2DH + H + D parameters in both forms, 2DH MACs.

    The classifier of N classes on D channels adds (D + 1)·N parameters and D·N MACs.

    ``num_classes=0`` counts the backbone alone. ``input_size`` is height and width of the image, or one
    number for both. An argument that is not allowed is a TypeError or ValueError.
    """
    check_integer('num_classes', num_classes, 0)
    check_integer('in_channels', in_channels, 1)
    arch = get_arch(arch)
    sides = [input_size] * 2 if is_integer(input_size) else input_size
    height, width = check_sequence('input_size', sides, 2)
    units = list_units(
        (arch.stem_channels, *arch.channels),
        arch.num_blocks,
        arch.num_conv_branches,
        arch.num_se_blocks,
        (check_integer('input_size', height, 1), check_integer('input_size', width, 1)),
        in_channels,
    )
    return count_units(units, num_classes)


def list_units(
    channels: Sequence[Integer],
    num_blocks: Sequence[int],
    num_conv_branches: Sequence[int] = (1, 1, 1, 1),
    num_se_blocks: Sequence[int] = (0, 0, 0, 0),
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
) -> list[Unit]:
    """List the units of a backbone in order: the stem, then depthwise and pointwise alternately.

    ``channels`` are the outputs of the stem and of the four stages, ``size`` is the height and width of
    the image; the other sequences have one number for each stage. The stem has one conv branch.
    """
    # Kernel size 3, padding 1 and stride 2 halve a side and round up.
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
    """Sum units and a linear classifier on the last one, with the formulas of :func:`count`."""
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
