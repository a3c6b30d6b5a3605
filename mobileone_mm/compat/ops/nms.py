"""Greedy non-maximum suppression, compiled by torchvision where that is installed."""

import torch
from torch import Tensor

from .compiled import at_least_float, has_kernel

#: Boxes, ranked by score, that are decided together.
_BLOCK = 128
#: Pairs of boxes in the largest temporary table, which then stays in the cache.
_PAIRS = 1 << 17


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Return the indices of the boxes that greedy suppression keeps, by falling score.

    A box is dropped if a kept box of higher score (or of equal score and lower index) overlaps it
    by an IoU strictly greater than ``iou_threshold``. As in mmcv, the threshold is a float32.
    ``boxes`` (N, 4) are corners x1, y1, x2, y2; half types are computed in float32. ``offset`` (0 or 1)
    is added to every width and height; torchvision's operator has only 0.
    """
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    boxes, scores = at_least_float(boxes), at_least_float(scores)
    if offset == 0 and boxes.dtype == scores.dtype and has_kernel('nms', boxes.device.type):
        return torch.ops.torchvision.nms(boxes, scores, threshold)
    return greedy(boxes, scores, threshold, offset)


@torch.no_grad()
def greedy(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Do as :func:`nms` does, on plain torch.

    The operations have the order of mmcv's kernel, so float32 results agree with it bit by bit.
    """
    order = scores.sort(descending=True, stable=True).indices
    if not len(order):
        return order
    sides = with_area(boxes[order], offset)
    parts = _independent(sides, offset)
    kept = [part[_kept(sides[:, part], iou_threshold, offset)] for part in parts]
    return order[torch.cat(kept).sort().values]


def _independent(sides: Tensor, offset: int) -> list[Tensor]:
    """Split ranked (5, N) boxes into ascending ranks of parts that share no area.

    mmcv's ``batched_nms`` shifts each class by more than the width of the image, so that the parts
    are single classes. Small parts stay together. The gap is measured as :func:`overlap` measures
    a width, and rounding is monotonic.
    """
    left, order = sides[0].sort()
    gap = (sides[2, order].cummax(0).values[:-1] - left[1:]).add_(offset) <= 0
    start = torch.zeros_like(order)
    start[1:] = torch.arange(1, len(order), device=order.device) * gap
    number = start.cummax(0).values.div(_BLOCK // 2, rounding_mode='floor')
    sizes = number.unique_consecutive(return_counts=True)[1].tolist()
    return [part.sort().values for part in order.split(sizes)]


def _kept(sides: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the kept ranks of (5, N) boxes: block after block of those that are left."""
    rest = torch.arange(sides.shape[1], device=sides.device)
    kept = []
    while len(rest):
        head, rest = rest[:_BLOCK], rest[_BLOCK:]
        block = sides[:, head]
        survives = _settle(overlap(block, block, offset) > iou_threshold)
        kept.append(head[survives])
        if len(rest):
            block = block[:, survives]
            parts = rest.split(max(_PAIRS // block.shape[1], 1))
            free = [(overlap(block, sides[:, p], offset) > iou_threshold).any(0) for p in parts]
            rest = rest[~torch.cat(free)]
    return torch.cat(kept)


def with_area(boxes: Tensor, offset: int) -> Tensor:
    """Return (N, 4) corners as rows (x1, y1, x2, y2, area) of a contiguous (5, N)."""
    x1, y1, x2, y2 = at_least_float(boxes).unbind(1)
    return torch.stack((x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)))


def overlap(first: Tensor, second: Tensor, offset: int) -> Tensor:
    """Return the IoU of all pairs of (5, R) and (5, C) as (R, C); NaN for two empty boxes."""
    ax1, ay1, ax2, ay2, a_area = first.unsqueeze(-1)
    bx1, by1, bx2, by2, b_area = second.unsqueeze(-2)
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).add_(offset).clamp_(min=0)
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).add_(offset).clamp_(min=0)
    shared = width.mul_(height)
    return shared.div_((a_area + b_area).sub_(shared))


def _settle(drops: Tensor) -> Tensor:
    """Return which of K ranks are kept, if ``drops[i, j]`` says that a kept rank i drops rank j.

    "Kept" is the only solution of ``kept[j] = no kept i < j drops j``. Each iteration from "all are
    kept" decides at least one more rank, and for real boxes a few iterations are enough.
    """
    table = drops.triu(diagonal=1).float()
    kept = torch.ones(len(table), dtype=torch.bool, device=table.device)
    while True:
        again = torch.mv(table.t(), kept.float()) == 0
        if torch.equal(again, kept):
            return kept
        kept = again


def declare_for_torchvision() -> torch.library.Library:
    """Declare and implement the operators without which torchvision cannot be imported.

    Their schemas are in its compiled library. The operators exist as long as the result.
    """
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
            if name == 'nms':
                for device in ('CPU', 'CUDA'):
                    library.impl(name, greedy, device)
    return library
