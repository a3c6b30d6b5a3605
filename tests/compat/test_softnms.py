"""Soft suppression against its definition."""

from __future__ import annotations

import mobileone_mm  # noqa: F401  isort: skip

import math

import pytest
import torch
from torch import Tensor

from mobileone_mm.compat.ops.softnms import softnms


def iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def by_definition(boxes, scores, threshold, sigma, least, method, offset):
    """Picked indices and their decayed scores."""
    left, picked = dict(enumerate(scores.tolist())), []
    rows = boxes.tolist()
    while left:
        best = max(left, key=lambda i: left[i])
        picked.append((best, left.pop(best)))
        for other in list(left):
            overlap = iou(rows[best], rows[other], offset)
            if method == 2:
                left[other] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                left[other] *= 1 - overlap if method == 1 else 0
            if left[other] < least:
                del left[other]
    return picked


def run(boxes: Tensor, scores: Tensor, **kwargs) -> tuple[Tensor, Tensor]:
    dets = boxes.new_full((len(boxes), 5), -7)
    index = softnms(boxes, scores, dets, **kwargs)
    return dets, index


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', [0, 1, 2])
def test_random_boxes(method: int, offset: int):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        corner = torch.rand(120, 2, generator=generator, dtype=torch.float64) * 100
        size = torch.rand(120, 2, generator=generator, dtype=torch.float64) * 40
        boxes = torch.cat((corner, corner + size), 1)
        scores = torch.rand(120, generator=generator, dtype=torch.float64)
        settings = dict(iou_threshold=0.3, sigma=0.5, method=method, offset=offset)
        dets, index = run(boxes, scores, min_score=0.05, **settings)
        picked = by_definition(boxes, scores, 0.3, 0.5, 0.05, method, offset)
        assert index.tolist() == [number for number, _ in picked]
        expected = torch.tensor([score for _, score in picked], dtype=torch.float64)
        torch.testing.assert_close(dets[: len(index), 4], expected, rtol=1e-12, atol=0)
        assert torch.equal(dets[: len(index), :4], boxes[index])
        assert (dets[len(index) :] == -7).all()


def test_the_gap_of_a_box_that_leaves_is_filled_by_the_last():
    """Box 1 leaves at once, box 4 takes its place and so comes before its equals 2 and 3."""
    far = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 10]] + [[x, 0, x + 5, 5] for x in (20.0, 30, 40)]
    )
    scores = torch.tensor([0.9, 0.8, 0.5, 0.5, 0.5])
    _, index = run(far, scores, iou_threshold=0.5, sigma=0.5, min_score=0.1, method=0, offset=0)
    assert index.tolist() == [0, 4, 2, 3]


def test_the_best_box_is_picked_however_low():
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6]])
    dets, index = run(boxes, torch.tensor([1e-4, 1e-5]), iou_threshold=0.3, sigma=0.5,
                      min_score=0.01, method=1, offset=0)  # fmt: skip
    assert index.tolist() == [0]
    assert dets[0, 4] == torch.tensor(1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_types_and_no_boxes(dtype: torch.dtype):
    settings = dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method=2, offset=0)
    dets, index = run(torch.empty(0, 4, dtype=dtype), torch.empty(0, dtype=dtype), **settings)
    assert index.shape == (0,)
    assert index.dtype == torch.long
    same = torch.tensor([[0.0, 0, 8, 8]] * 2, dtype=dtype)
    dets, index = run(same, torch.tensor([0.5, 0.25], dtype=dtype), **settings)
    assert index.tolist() == [0, 1]
    assert dets.dtype == dtype
    assert dets[1, 4].item() == pytest.approx(0.25 * math.exp(-2), rel=1e-2)


@pytest.mark.parametrize('method', [0, 1, 2])
def test_empty_areas_decay_to_no_nan(method: int):
    points = torch.zeros(3, 4)
    dets, index = run(points, torch.tensor([0.5, 0.4, 0.3]), iou_threshold=0.3, sigma=0.5,
                      min_score=1e-3, method=method, offset=0)  # fmt: skip
    assert index.tolist() == [0, 1, 2]
    assert torch.isfinite(dets).all()
    assert dets[:, 4].tolist() == pytest.approx([0.5, 0.4, 0.3])
