"""Greedy non-maximum suppression without a compiler.

A loop over boxes costs a Python step per box, which for 80 classes times ``nms_pre=1000`` takes
longer than a small detector itself. Two facts make it cheap:

* Boxes whose x ranges do not touch cannot suppress each other. mmcv's ``batched_nms`` shifts each
  class by more than the width of the image, so a single sort splits its one call into classes.
* Within such a group, "kept" is the only solution of ``kept[j] = no kept i < j overlaps j``.
  Iterating that equation from "all kept" settles at least one more rank each time, hence reaches
  the greedy result exactly, and does so in a few rounds for real boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Groups up to this size are solved together, padded to a power of two; larger ones one by one.
_SMALL = 128
#: Ranks of a large group that are settled at once.
_BLOCK = 128
#: Pairs of boxes looked at in one go, so that the pairwise tables stay in the cache.
_PAIRS = 1 << 17


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the boxes that greedy suppression keeps, by falling score.

    A box is dropped if a kept one of higher score (or of equal score and lower index) overlaps it
    by an IoU strictly greater than ``iou_threshold``. Half types are computed in float32, with the
    operations in the order of mmcv's kernel, so that float32 results agree with it bit by bit.

    Args:
        boxes: (N, 4) corners x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: Overlap above which the lower box is dropped.
        offset: Added to every width and height, 0 or 1.

    Returns:
        (K,) int64, on the device of ``boxes``.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    order = scores.sort(descending=True, stable=True).indices
    sides = with_area(boxes[order], offset)
    if len(order) <= _SMALL or iou_threshold < 0:  # below zero even distant boxes suppress
        keep = _greedy(sides, iou_threshold, offset)
    else:
        keep = _grouped(sides, iou_threshold, offset)
    return order[keep]


def with_area(boxes: Tensor, offset: int) -> Tensor:
    """(N, 4) corners as rows (x1, y1, x2, y2, area) of a contiguous (5, N), at least float32."""
    if boxes.dtype != torch.float64:
        boxes = boxes.float()
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack((x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)))


def overlap(first: Tensor, second: Tensor, offset: int) -> Tensor:
    """IoU of all pairs of (5, ..., R) and (5, ..., C): (..., R, C), NaN for two empty boxes."""
    ax1, ay1, ax2, ay2, a_area = first.unsqueeze(-1)
    bx1, by1, bx2, by2, b_area = second.unsqueeze(-2)
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1))
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1))
    if offset:
        width.add_(offset)
        height.add_(offset)
    shared = width.clamp_(min=0).mul_(height.clamp_(min=0))
    return shared.div_((a_area + b_area).sub_(shared))


def _settle(drops: Tensor) -> Tensor:
    """Kept ranks of (..., K, K) tables that say whether rank i, if kept, drops rank j."""
    table = drops.triu(diagonal=1).float()
    kept = torch.ones(table.shape[:-1], dtype=torch.bool, device=table.device)
    while True:
        again = torch.matmul(kept.unsqueeze(-2).float(), table).squeeze(-2) == 0
        if torch.equal(again, kept):
            return kept
        kept = again


def _greedy(sides: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Kept positions of ranked (5, N) boxes, in order: block after block of the survivors."""
    rest = torch.arange(sides.shape[1], device=sides.device)
    kept = [rest[:0]]
    while len(rest):
        head, rest = rest[:_BLOCK], rest[_BLOCK:]
        block = sides[:, head]
        survives = _settle(overlap(block, block, offset) > iou_threshold)
        kept.append(head[survives])
        if len(rest):
            block = block[:, survives]
            step = max(_PAIRS // max(block.shape[1], 1), 1)
            free = [
                ~(overlap(block, sides[:, part], offset) > iou_threshold).any(0)
                for part in rest.split(step)
            ]
            rest = rest[torch.cat(free)]
    return torch.cat(kept)


def _grouped(sides: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """As :func:`_greedy`, one group of boxes with touching x ranges at a time."""
    group = _groups(sides, offset)
    size = group.bincount()
    member = group.sort(stable=True).indices  # group after group, falling score within each
    start = size.cumsum(0) - size
    kept = []
    large = size > _SMALL
    for first, last in zip(start[large].tolist(), (start + size)[large].tolist(), strict=True):
        ranks = member[first:last]
        kept.append(ranks[_greedy(sides[:, ranks], iou_threshold, offset)])
    width, lower = 1, 0
    while lower < _SMALL:
        chosen = (size > lower) & (size <= width)
        for part in torch.stack((start[chosen], size[chosen]), 1).split(max(_PAIRS // width**2, 1)):
            kept.append(_padded(sides, member, part, width, iou_threshold, offset))
        lower, width = width, width * 2
    return torch.cat(kept).sort().values


def _padded(
    sides: Tensor, member: Tensor, spans: Tensor, width: int, iou_threshold: float, offset: int
) -> Tensor:
    """Kept ranks of the groups at ``spans`` (G, 2: start, size) of ``member``, all at once."""
    start, size = spans.unsqueeze(-1).unbind(1)
    column = torch.arange(width, device=member.device)
    ranks = member[(start + column).clamp_(max=len(member) - 1)]
    boxes = sides[:, ranks]
    # Padding stands behind the group, so it can drop none of its members.
    kept = _settle(overlap(boxes, boxes, offset) > iou_threshold)
    return ranks[kept & (column < size)]


def _groups(sides: Tensor, offset: int) -> Tensor:
    """Group number of each of (5, N) boxes; boxes of different groups share no area.

    The gap is measured as :func:`overlap` measures a width, and rounding is monotonic: if no
    width is left against the furthest x2 so far, none is left against any box before.
    """
    left, order = sides[0].sort()
    reach = sides[2, order].cummax(0).values
    cut = (reach[:-1] - left[1:]).add_(offset) <= 0
    group = torch.zeros_like(order)
    group[order[1:]] = cut.cumsum(0)
    return group
