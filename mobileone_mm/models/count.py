"""Parameters and MACs of any size, from a network that has no memory."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from .mobileone import MobileOne
from .sizes import Arch


class Counts(NamedTuple):
    """The result of :func:`count`.

    MACs are those of one image, without biases, activations and pooling, as in the paper's "FLOPs".
    """

    parameters_fused: int  # weights and biases of the deploy form
    parameters_unfused: int  # of the training form, without running statistics
    macs: int  # multiply-adds of the deploy form


@torch.no_grad()
def count(
    arch: str | Mapping[str, Any] | Arch,
    num_classes: int = 1000,
    input_size: int | Sequence[int] = 224,
    in_channels: int = 3,
) -> Counts:
    """Count a backbone of stride 32 and a linear classifier on its last stage.

    ``num_classes=0`` counts the backbone alone. ``input_size`` is height and width of the image, or one
    number for both.
    """
    size = [input_size] * 2 if isinstance(input_size, int) else input_size
    with torch.device('meta'):
        fused, unfused = (
            MobileOne(arch, in_channels=in_channels, deploy=deploy, init_cfg=None).eval()
            for deploy in (True, False)
        )
        with FlopCounterMode(display=False) as counter:
            fused(torch.empty(1, in_channels, *size))
    features = fused.out_channels[-1]
    classifier = (features + 1) * num_classes
    return Counts(
        sum(p.numel() for p in fused.parameters()) + classifier,
        sum(p.numel() for p in unfused.parameters()) + classifier,
        counter.get_total_flops() // 2 + features * num_classes,
    )
