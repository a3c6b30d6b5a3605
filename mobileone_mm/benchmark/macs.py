"""Multiply-adds of anything that runs, by PyTorch's own counter."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_macs(forward: Callable[[], Any]) -> int:
    """Count the multiply-adds of convolutions and matrix products in one call.

    The counter sees every operator that runs. mmengine's counter walks a trace, and the detectors
    of mmdet cannot be traced. Stand-ins for compiled operators count as what they consist of.
    """
    with FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops()) // 2
