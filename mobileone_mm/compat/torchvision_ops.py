"""The operators without which torchvision cannot be imported, on plain torch.

torchvision ships their schemas inside its compiled library. If that cannot be loaded, the first
Python line that refers to one ends the import.
"""

from __future__ import annotations

from types import ModuleType

import torch

from .ops.nms import nms

_SIGNATURE = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
#: Alive as long as the process: the operators vanish with it.
_LIBRARY = torch.library.Library('torchvision', 'FRAGMENT')


def declare() -> None:
    """Declare ``torchvision::nms`` and ``qnms`` where missing, and implement the former."""
    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(name + _SIGNATURE)
            if name == 'nms':
                for device in ('CPU', 'CUDA'):
                    _LIBRARY.impl(name, nms, device)


def unlock(torchvision: ModuleType) -> None:
    """Let ``torchvision.ops.nms`` reach the operator.

    torchvision guards all its operators with one check for the compiled library. It is lifted in
    the file of ``nms`` only; everything else, such as ``roi_align``, still says what it misses.
    """
    boxes = torchvision.ops.boxes
    boxes._assert_has_ops = lambda: None
