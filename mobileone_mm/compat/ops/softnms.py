"""Soft non-maximum suppression (Bodla et al., arXiv 1704.04503) without a compiler."""

import torch
from torch import Tensor

from .nms import overlap, with_area

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Return the indices (K,) of the boxes (N, 4) in the order in which they are picked.

    The first K rows of ``dets`` (N, 5) receive the boxes and their decayed scores. The best box is
    picked, the scores of the others decay by their overlap with it, and boxes below ``min_score``
    leave. Boxes of equal score come in the order of mmcv's kernel, which moves the last box into the
    place of one that leaves. From ``iou_threshold`` on, ``method`` 0 (naive) makes a score 0 and 1
    (linear) multiplies it by 1 - IoU; 2 is Gaussian with the width ``sigma``. ``offset`` (0 or 1) is
    added to every width and height.
    """
    sides = with_area(boxes.detach(), offset)
    left = scores.detach().to(sides.dtype).clone()
    index = torch.arange(len(left), device=boxes.device)
    picked, values = [], []
    while len(left):
        best = int(left.argmax())
        picked.append(index[best].clone())
        values.append(left[best].clone())
        box = sides[:, best : best + 1].clone()
        for row in (sides, left, index):
            row[..., best] = row[..., 0]
        sides, left, index = sides[:, 1:], left[1:], index[1:]
        left = left * _decay(overlap(box, sides, offset)[0], iou_threshold, sigma, method)
        stays = ~(left < min_score)
        if not stays.all():
            order = _close_gaps(stays)
            sides, left, index = sides[:, order], left[order], index[order]
    if not picked:
        return index
    keep = torch.stack(picked)
    dets[: len(keep), :4] = boxes[keep]
    dets[: len(keep), 4] = torch.stack(values).to(dets.dtype)
    return keep


def _decay(iou: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    iou = iou.nan_to_num(nan=0.0)  # two empty boxes: mmcv's Gaussian method gives NaN scores
    if method == _GAUSSIAN:
        return torch.exp(-(iou * iou) / sigma)
    hit = iou >= iou_threshold
    return torch.where(hit, 1 - iou if method == _LINEAR else 0.0, 1.0)


def _close_gaps(stays: Tensor) -> Tensor:
    """Return the order of the boxes that stay: the last of them fills each gap."""
    count = int(stays.sum())
    order = torch.arange(count, device=stays.device)
    gaps = (~stays[:count]).nonzero().squeeze(1)
    order[gaps] = stays[count:].nonzero().squeeze(1).flip(0) + count
    return order
