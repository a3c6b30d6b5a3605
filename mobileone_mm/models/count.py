"""MACs of anything that runs, by PyTorch's own counter, and the figures of any size of MobileOne."""

from collections.abc import Callable, Mapping
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
def count_macs(forward: Callable[[], Any]) -> int:
    """Count the multiply-adds of convolutions and matrix products in one call.

    The counter sees every operator that runs. mmengine's counter walks a trace, and the detectors
    of mmdet cannot be traced. Stand-ins for compiled operators count as what they consist of.
    """
    with FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops()) // 2


def count(
    arch: str | Mapping[str, Any] | Arch, num_classes: int = 1000, input_size: int = 224
) -> Counts:
    """Count a backbone of stride 32 and a linear classifier on its last stage, for a square image."""
    with torch.device('meta'):
        fused, unfused = (
            MobileOne(arch, deploy=deploy, init_cfg=None).eval() for deploy in (True, False)
        )
        macs = count_macs(lambda: fused(torch.empty(1, 3, input_size, input_size)))
    features = fused.out_channels[-1]
    classifier = (features + 1) * num_classes
    return Counts(
        sum(p.numel() for p in fused.parameters()) + classifier,
        sum(p.numel() for p in unfused.parameters()) + classifier,
        macs + features * num_classes,
    )
