"""The operators without which torchvision cannot be imported, on plain torch.

Their schemas are in its compiled library. Without it the first reference to one ends the import.
"""

from __future__ import annotations

from types import ModuleType

import torch

from .ops.nms import greedy

_SIGNATURE = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
#: The operators exist as long as this object.
_LIBRARY = torch.library.Library('torchvision', 'FRAGMENT')


def declare() -> None:
    """Declare ``torchvision::nms`` and ``qnms`` where missing, and implement the former."""
    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(name + _SIGNATURE)
            if name == 'nms':
                for device in ('CPU', 'CUDA'):
                    _LIBRARY.impl(name, greedy, device)


def unlock(torchvision: ModuleType) -> None:
    """Let ``torchvision.ops.nms`` reach the operator.

    torchvision's operators check for the compiled library. The file of ``nms`` alone no longer
    does; all other operators, such as ``roi_align``, still say what they miss.
    """
    boxes = torchvision.ops.boxes
    boxes._assert_has_ops = lambda: None
