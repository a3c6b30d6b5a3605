"""Greedy suppression against its definition, box by box."""

from __future__ import annotations

import mobileone_mm  # noqa: F401  isort: skip

import numpy as np
import pytest
import torch
from torch import Tensor

from mobileone_mm.compat.ops import nms as nms_file
from mobileone_mm.compat.ops.nms import nms


def by_definition(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> list[int]:
    """Take the best box left, drop what overlaps it by more than the threshold, repeat."""
    kind = np.float32 if boxes.dtype == torch.float32 else np.float64
    x1, y1, x2, y2 = boxes.numpy().astype(kind).T
    area = (x2 - x1 + kind(offset)) * (y2 - y1 + kind(offset))
    waiting = np.argsort(-scores.numpy(), kind='stable')
    kept = []
    while len(waiting):
        best, others = waiting[0], waiting[1:]
        kept.append(int(best))
        width = np.minimum(x2[best], x2[others]) - np.maximum(x1[best], x1[others]) + kind(offset)
        height = np.minimum(y2[best], y2[others]) - np.maximum(y1[best], y1[others]) + kind(offset)
        shared = np.maximum(width, kind(0)) * np.maximum(height, kind(0))
        with np.errstate(divide='ignore', invalid='ignore'):
            iou = shared / (area[best] + area[others] - shared)
        waiting = others[~(iou > kind(threshold))]
    return kept


def random_boxes(number: int, largest: float, seed: int, classes: int = 1) -> tuple[Tensor, Tensor]:
    """Boxes on a 320 px image, shifted by class as mmcv's batched_nms does, and scores."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(number, 2, generator=generator) * 320
    size = torch.rand(number, 2, generator=generator) * largest
    boxes = torch.cat((centre - size / 2, centre + size / 2), 1).clamp(0, 320)
    label = torch.randint(classes, (number, 1), generator=generator)
    return boxes + label * 321, torch.rand(number, generator=generator)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ('number', 'largest', 'classes'),
    [(1, 50, 1), (2, 300, 1), (127, 90, 1), (129, 90, 1), (1500, 200, 1), (3000, 60, 4),
     (3000, 120, 80), (700, 5, 1)],
)  # fmt: skip
def test_random_boxes(number: int, largest: int, classes: int, dtype: torch.dtype, offset: int):
    for seed, threshold in enumerate((0.3, 0.45, 0.7)):
        boxes, scores = random_boxes(number, largest, seed, classes)
        boxes, scores = boxes.to(dtype), scores.to(dtype)
        kept = nms(boxes, scores, threshold, offset)
        assert kept.dtype == torch.long
        assert kept.tolist() == by_definition(boxes, scores, threshold, offset)


@pytest.mark.parametrize('number', [60, 900])
def test_ties_go_to_the_lower_index(number: int):
    for seed in range(4):
        boxes, scores = random_boxes(number, 150, seed)
        scores = (scores * 4).floor() / 4
        boxes = (boxes / 8).round() * 8  # equal and touching boxes too
        for threshold in (0.0, 1 / 3, 0.5, 1.0):
            assert nms(boxes, scores, threshold).tolist() == by_definition(boxes, scores, threshold)
    same = torch.tensor([[3.0, 3, 9, 9]]).repeat(number, 1)
    assert nms(same, torch.full((number,), 0.5), 0.5).tolist() == [0]


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('number', [100, 1000])
def test_degenerate_boxes(number: int, offset: int):
    boxes, scores = random_boxes(number, 80, seed=7)
    boxes[0::5, 2:] = boxes[0::5, :2]  # points
    boxes[1::5] = boxes[1::5][:, [2, 3, 0, 1]]  # negative sizes
    boxes[2::5, 3] = boxes[2::5, 1]  # lines
    boxes[3::10] = boxes[3].clone()
    for threshold in (0.0, 0.5):
        expected = by_definition(boxes, scores, threshold, offset)
        assert nms(boxes, scores, threshold, offset).tolist() == expected


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_boxes(dtype: torch.dtype):
    kept = nms(torch.empty(0, 4, dtype=dtype), torch.empty(0, dtype=dtype), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.long


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype):
    boxes, scores = random_boxes(500, 100, seed=3)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    expected = by_definition(boxes.float(), scores.float(), 0.4)
    assert nms(boxes, scores, 0.4).tolist() == expected


@pytest.mark.parametrize('number', [5, 100, 600])
def test_a_long_chain_alternates(number: int):
    """Each box drops the next one only: the equation needs as many rounds as there are boxes."""
    left = torch.arange(number) * 4.0
    boxes = torch.stack((left, torch.zeros(number), left + 10, torch.full((number,), 10.0)), 1)
    scores = torch.linspace(1, 0.1, number)
    assert nms(boxes, scores, 0.4).tolist() == list(range(0, number, 2))


def test_boxes_that_touch_share_area_only_with_the_offset():
    touching = torch.tensor([[0.0, 0, 9, 9], [9, 0, 18, 9], [19, 0, 28, 9]]).repeat(80, 1)
    touching += torch.arange(80).repeat_interleave(3).unsqueeze(1) * 100
    scores = torch.linspace(1, 0.1, 240)
    assert len(nms(touching, scores, 0.04)) == 240
    assert len(nms(touching, scores, 0.04, offset=1)) == 160  # 10 of 190 pixels shared


def test_a_negative_threshold_keeps_only_the_best():
    boxes, scores = random_boxes(400, 10, seed=1)
    assert nms(boxes, scores, -0.1).tolist() == [int(scores.argmax())]


def test_not_finite_coordinates_end_and_drop_nothing_they_do_not_overlap():
    boxes, scores = random_boxes(300, 1, seed=2)
    boxes = boxes * 100  # far apart
    boxes[5], boxes[6] = float('nan'), float('inf')
    kept = nms(boxes, scores, 0.5)
    assert len(kept) == len(set(kept.tolist())) == 300


def test_block_sizes_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    boxes, scores = random_boxes(800, 60, seed=9, classes=6)
    expected = nms(boxes, scores, 0.3)
    for block, pairs in ((3, 50), (2, 1 << 20), (1 << 20, 1), (7, 4096)):
        monkeypatch.setattr(nms_file, '_BLOCK', block)
        monkeypatch.setattr(nms_file, '_PAIRS', pairs)
        assert torch.equal(nms_file.greedy(boxes, scores, 0.3), expected)


def test_inputs_stay_and_gradients_do_not_hinder():
    boxes, scores = random_boxes(300, 60, seed=4)
    boxes.requires_grad_()
    before = boxes.detach().clone()
    kept = nms(boxes, scores.requires_grad_(), 0.3)
    assert not kept.requires_grad
    assert torch.equal(boxes.detach(), before)
