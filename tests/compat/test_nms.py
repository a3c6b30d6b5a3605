"""Greedy and soft suppression against their definitions, box by box, and below mmcv's functions."""

import math

import numpy as np
import pytest
import torch
from mmcv import ops
from torch import Tensor

from mobileone_mm.compat.ops import nms as nms_file
from mobileone_mm.compat.ops.nms import nms
from mobileone_mm.compat.ops.softnms import softnms


def overlaps(box: np.ndarray, others: np.ndarray, offset: float) -> np.ndarray:
    """IoU of a box (4,) with others (4, N), in their dtype; NaN for two empty boxes."""
    x1, y1, x2, y2 = others
    width = np.minimum(box[2], x2) - np.maximum(box[0], x1) + offset
    height = np.minimum(box[3], y2) - np.maximum(box[1], y1) + offset
    shared = np.maximum(width, 0 * offset) * np.maximum(height, 0 * offset)
    area = (box[2] - box[0] + offset) * (box[3] - box[1] + offset)
    with np.errstate(divide='ignore', invalid='ignore'):
        return shared / (area + (x2 - x1 + offset) * (y2 - y1 + offset) - shared)


def by_definition(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> list[int]:
    """Take the best box left, drop what overlaps it by more than the threshold, repeat."""
    kind = np.float32 if boxes.dtype == torch.float32 else np.float64
    sides = boxes.numpy().astype(kind).T
    waiting = np.argsort(-scores.numpy(), kind='stable')
    kept = []
    while len(waiting):
        best, others = waiting[0], waiting[1:]
        kept.append(int(best))
        iou = overlaps(sides[:, best], sides[:, others], kind(offset))
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


def check(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> None:
    kept = nms(boxes, scores, threshold, offset)
    assert kept.dtype == torch.long
    assert kept.tolist() == by_definition(boxes, scores, threshold, offset)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ('number', 'largest', 'classes'),
    [(1, 50, 1), (2, 300, 1), (129, 90, 1), (900, 200, 1), (1500, 120, 80), (700, 5, 1)],
)
def test_random_boxes(number: int, largest: int, classes: int, dtype: torch.dtype, offset: int):
    for seed, threshold in enumerate((0.3, 0.7)):
        boxes, scores = random_boxes(number, largest, seed, classes)
        check(boxes.to(dtype), scores.to(dtype), threshold, offset)


@pytest.mark.parametrize('number', [60, 900])
def test_ties_go_to_the_lower_index(number: int):
    for seed in range(2):
        boxes, scores = random_boxes(number, 150, seed)
        scores = (scores * 4).floor() / 4
        boxes = (boxes / 8).round() * 8  # equal and touching boxes too
        for threshold in (0.0, 1 / 3, 0.5, 1.0):
            check(boxes, scores, threshold)
    same = torch.tensor([[3.0, 3, 9, 9]]).repeat(number, 1)
    assert nms(same, torch.full((number,), 0.5), 0.5).tolist() == [0]


@pytest.mark.parametrize('offset', [0, 1])
def test_degenerate_boxes(offset: int):
    boxes, scores = random_boxes(600, 80, seed=7)
    boxes[0::5, 2:] = boxes[0::5, :2]  # points
    boxes[1::5] = boxes[1::5][:, [2, 3, 0, 1]]  # negative sizes
    boxes[2::5, 3] = boxes[2::5, 1]  # lines
    boxes[3::10] = boxes[3].clone()
    for threshold in (0.0, 0.5):
        check(boxes, scores, threshold, offset)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32_and_none_may_be_there(dtype: torch.dtype):
    boxes, scores = random_boxes(500, 100, seed=3)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    expected = by_definition(boxes.float(), scores.float(), 0.4)
    assert nms(boxes, scores, 0.4).tolist() == expected
    for kind in (dtype, torch.float32):
        kept = nms(boxes[:0].to(kind), scores[:0].to(kind), 0.5)
        assert (kept.shape, kept.dtype) == ((0,), torch.long)


@pytest.mark.parametrize('number', [5, 600])
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


def test_not_finite_coordinates_end_and_drop_nothing_they_do_not_overlap():
    boxes, scores = random_boxes(300, 1, seed=2)
    boxes = boxes * 100  # far apart
    boxes[5], boxes[6] = float('nan'), float('inf')
    kept = nms(boxes, scores, 0.5)
    assert len(kept) == len(set(kept.tolist())) == 300


def test_block_sizes_do_not_matter_and_inputs_stay(monkeypatch: pytest.MonkeyPatch):
    boxes, scores = random_boxes(800, 60, seed=9, classes=6)
    before = boxes.clone()
    expected = nms(boxes.requires_grad_(), scores.requires_grad_(), 0.3)
    assert not expected.requires_grad
    for block, pairs in ((3, 50), (2, 1 << 20), (1 << 20, 1), (7, 4096)):
        monkeypatch.setattr(nms_file, '_BLOCK', block)
        monkeypatch.setattr(nms_file, '_PAIRS', pairs)
        assert torch.equal(nms_file.greedy(boxes, scores, 0.3), expected)
    assert torch.equal(boxes.detach(), before)


def softly(boxes, scores, threshold, sigma, least, method, offset):
    """Picked indices and their decayed scores, by definition."""
    left, picked = dict(enumerate(scores.tolist())), []
    sides = boxes.numpy().T
    while left:
        best = max(left, key=lambda i: left[i])
        picked.append((best, left.pop(best)))
        found = np.nan_to_num(overlaps(sides[:, best], sides, float(offset))).tolist()
        for other in list(left):
            if method == 2:
                left[other] *= math.exp(-(found[other] ** 2) / sigma)
            elif found[other] >= threshold:
                left[other] *= 1 - found[other] if method == 1 else 0
            if left[other] < least:
                del left[other]
    return picked


def run(boxes: Tensor, scores: Tensor, **settings) -> tuple[Tensor, Tensor]:
    dets = boxes.new_full((len(boxes), 5), -7)
    given = dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method=2, offset=0)
    return dets, softnms(boxes, scores, dets, **{**given, **settings})


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', [0, 1, 2])
def test_soft_random_boxes(method: int, offset: int):
    for seed in range(2):
        boxes, scores = (part.double() for part in random_boxes(120, 130, seed))
        dets, index = run(boxes, scores, min_score=0.05, method=method, offset=offset)
        picked = softly(boxes, scores, 0.3, 0.5, 0.05, method, offset)
        assert index.tolist() == [number for number, _ in picked]
        expected = torch.tensor([score for _, score in picked], dtype=torch.float64)
        torch.testing.assert_close(dets[: len(index), 4], expected, rtol=1e-12, atol=0)
        assert torch.equal(dets[: len(index), :4], boxes[index])
        assert (dets[len(index) :] == -7).all()


def test_the_gap_of_a_box_that_leaves_is_filled_by_the_last():
    """Box 1 leaves at once, box 4 takes its place and so comes before its equals 2 and 3."""
    far = torch.tensor([[x, 0, x + 10, 10] for x in (0.0, 0, 20, 30, 40)])
    scores = torch.tensor([0.9, 0.8, 0.5, 0.5, 0.5])
    assert run(far, scores, min_score=0.1, method=0)[1].tolist() == [0, 4, 2, 3]


def test_the_best_box_is_picked_however_low():
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6]])
    dets, index = run(boxes, torch.tensor([1e-4, 1e-5]), min_score=0.01, method=1)
    assert index.tolist() == [0]
    assert dets[0, 4] == torch.tensor(1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_soft_types_and_no_boxes(dtype: torch.dtype):
    _, index = run(torch.empty(0, 4, dtype=dtype), torch.empty(0, dtype=dtype))
    assert (index.shape, index.dtype) == ((0,), torch.long)
    same = torch.tensor([[0.0, 0, 8, 8]] * 2, dtype=dtype)
    dets, index = run(same, torch.tensor([0.5, 0.25], dtype=dtype))
    assert index.tolist() == [0, 1]
    assert dets.dtype == dtype
    assert dets[1, 4].item() == pytest.approx(0.25 * math.exp(-2), rel=1e-2)


@pytest.mark.parametrize('method', [0, 1, 2])
def test_empty_areas_decay_to_no_nan(method: int):
    dets, index = run(torch.zeros(3, 4), torch.tensor([0.5, 0.4, 0.3]), method=method)
    assert index.tolist() == [0, 1, 2]
    assert dets[:, 4].tolist() == pytest.approx([0.5, 0.4, 0.3])


@pytest.fixture
def many() -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on whole pixels, so that the class offset costs no digits; scores; labels."""
    boxes, scores = random_boxes(400, 90, seed=0)
    labels = torch.randint(0, 7, (400,), generator=torch.Generator().manual_seed(0))
    return boxes.round(), scores, labels


def per_class(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for own in indices_of_each(labels):
        kept += own[by_definition(boxes[own], scores[own], threshold)].tolist()
    return sorted(kept, key=lambda i: -float(scores[i]))


def indices_of_each(labels: Tensor) -> list[Tensor]:
    return [(labels == label).nonzero().squeeze(1) for label in labels.unique()]


def test_mmcv_nms(many):
    boxes, scores, _ = many
    for offset in (0, 1):
        dets, index = ops.nms(boxes, scores, 0.4, offset=offset)
        assert index.tolist() == by_definition(boxes, scores, 0.4, offset)
        assert torch.equal(dets, torch.cat((boxes[index], scores[index, None]), 1))
    assert ops.nms(torch.empty(0, 4), torch.empty(0), 0.4)[0].shape == (0, 5)


@pytest.mark.parametrize('split', [10000, 100])
def test_batched_nms_per_class(many, split: int):
    boxes, scores, labels = many
    settings = dict(type='nms', iou_threshold=0.4, split_thr=split)
    dets, index = ops.batched_nms(boxes, scores, labels, settings)
    assert index.tolist() == per_class(boxes, scores, labels, 0.4)
    assert torch.equal(dets, torch.cat((boxes[index], scores[index, None]), 1))


@pytest.mark.parametrize('split', [10000, 100])
def test_batched_soft_nms(many, split: int):
    """Classes do not touch: soft suppression of all at once is that of each class."""
    boxes, scores, labels = many
    settings = dict(type='soft_nms', iou_threshold=0.3, min_score=0.05, split_thr=split)
    dets, index = ops.batched_nms(boxes, scores, labels, settings)
    expected: dict[int, float] = {}
    for own in indices_of_each(labels):
        part, order = ops.soft_nms(boxes[own], scores[own], 0.3, min_score=0.05)
        expected.update(zip(own[order].tolist(), part[:, 4].tolist(), strict=True))
    # A class's best box stays whatever its score, over all classes only the very best does.
    assert all(score >= 0.05 for score in expected.values())
    assert index.tolist() == sorted(expected, key=lambda i: -expected[i])
    assert dets[:, 4].tolist() == pytest.approx(sorted(expected.values(), reverse=True))


def test_mmcv_soft_nms(many):
    boxes, scores, _ = many
    for number, method in enumerate(('naive', 'linear', 'gaussian')):
        dets, index = ops.soft_nms(boxes, scores, 0.3, method=method, min_score=0.05)
        picked = softly(boxes, scores, 0.3, 0.5, 0.05, number, 0)
        assert index.tolist() == [i for i, _ in picked]
        assert dets[:, 4].tolist() == pytest.approx([score for _, score in picked], rel=1e-5)
        assert torch.equal(dets[:, :4], boxes[index])


def test_torchvision_suppresses_too(many):
    vision = pytest.importorskip('torchvision').ops
    boxes, scores, labels = many
    # No quotient of these boxes' areas is this number: with an overlap of exactly 0.4, torchvision's
    # own operator, where it is installed, suppresses on the CPU (float32 0.4 > 0.4) and not on a GPU.
    threshold = 0.41379
    assert vision.nms(boxes, scores, threshold).tolist() == by_definition(boxes, scores, threshold)
    index = vision.batched_nms(boxes, scores, labels, threshold)
    assert index.tolist() == per_class(boxes, scores, labels, threshold)
