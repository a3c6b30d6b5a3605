"""mmcv's own Python functions on top of the operators: every path of its contract."""

from __future__ import annotations

import mobileone_mm  # noqa: F401  isort: skip

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip('mmcv')

from mmcv.ops import batched_nms, nms, soft_nms


@pytest.fixture
def many() -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on whole pixels, so that the class offset costs no digits; scores; labels."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 250, (400, 2), generator=generator).float()
    size = torch.randint(5, 80, (400, 2), generator=generator).float()
    labels = torch.randint(0, 7, (400,), generator=generator)
    scores = torch.rand(400, generator=generator)
    return torch.cat((corner, corner + size), 1), scores, labels


def by_definition(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> list[int]:
    kept: list[int] = []
    sides = boxes.double() + torch.tensor([0, 0, offset, offset])
    for i in scores.argsort(descending=True, stable=True).tolist():
        a = sides[i]
        others = sides[kept]
        shared = (torch.minimum(a[2:], others[:, 2:]) - torch.maximum(a[:2], others[:, :2])).clamp(
            0
        )
        shared = shared.prod(1)
        areas = (others[:, 2:] - others[:, :2]).prod(1) + (a[2:] - a[:2]).prod()
        if not (shared / (areas - shared) > threshold).any():
            kept.append(i)
    return kept


def per_class(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for label in labels.unique():
        own = (labels == label).nonzero().squeeze(1)
        kept += own[by_definition(boxes[own], scores[own], threshold)].tolist()
    return sorted(kept, key=lambda i: -float(scores[i]))


@pytest.mark.parametrize('offset', [0, 1])
def test_nms(many, offset: int):
    boxes, scores, _ = many
    dets, index = nms(boxes, scores, 0.4, offset=offset)
    assert index.tolist() == by_definition(boxes, scores, 0.4, offset)
    assert torch.equal(dets, torch.cat((boxes[index], scores[index, None]), 1))


def test_nms_score_threshold_max_num_and_numpy(many):
    boxes, scores, _ = many
    expected = [i for i in by_definition(boxes, scores, 0.4) if scores[i] > 0.3]
    _, index = nms(boxes, scores, 0.4, score_threshold=0.3)
    assert index.tolist() == expected
    _, index = nms(boxes, scores, 0.4, score_threshold=0.3, max_num=5)
    assert index.tolist() == expected[:5]
    dets, index = nms(boxes.numpy(), scores.numpy(), 0.4, max_num=3)
    assert isinstance(dets, np.ndarray)
    assert index.tolist() == by_definition(boxes, scores, 0.4)[:3]
    dets, index = nms(torch.empty(0, 4), torch.empty(0), 0.4)
    assert dets.shape == (0, 5)
    dets, index = nms(boxes, scores, 0.4, score_threshold=2.0)
    assert dets.shape == (0, 5)


@pytest.mark.parametrize('split', [10000, 100])
@pytest.mark.parametrize('most', [-1, 20])
def test_batched_nms_per_class(many, split: int, most: int):
    boxes, scores, labels = many
    expected = per_class(boxes, scores, labels, 0.4)
    settings = dict(type='nms', iou_threshold=0.4, split_thr=split, max_num=most)
    dets, index = batched_nms(boxes, scores, labels, settings)
    assert index.tolist() == (expected[:most] if most > 0 else expected)
    assert torch.equal(dets, torch.cat((boxes[index], scores[index, None]), 1))


@pytest.mark.parametrize('by_argument', [True, False])
def test_batched_nms_without_classes(many, by_argument: bool):
    boxes, scores, labels = many
    settings = dict(type='nms', iou_threshold=0.4)
    if not by_argument:
        settings['class_agnostic'] = True
    _, index = batched_nms(boxes, scores, labels, settings, class_agnostic=by_argument)
    assert index.tolist() == by_definition(boxes, scores, 0.4)


def test_batched_nms_without_suppression(many):
    boxes, scores, labels = many
    dets, index = batched_nms(boxes, scores, labels, None)
    assert torch.equal(index, scores.sort(descending=True).indices)
    assert torch.equal(dets[:, 4], scores[index])


@pytest.mark.parametrize('split', [10000, 100])
def test_batched_soft_nms(many, split: int):
    """Classes do not touch: soft suppression of all at once is that of each class."""
    boxes, scores, labels = many
    settings = dict(type='soft_nms', iou_threshold=0.3, min_score=0.05, split_thr=split)
    dets, index = batched_nms(boxes, scores, labels, settings)
    expected: dict[int, float] = {}
    for label in labels.unique():
        own = (labels == label).nonzero().squeeze(1)
        part, order = soft_nms(boxes[own], scores[own], 0.3, min_score=0.05)
        expected.update(zip(own[order].tolist(), part[:, 4].tolist(), strict=True))
    # A class's best box stays whatever its score, over all classes only the very best does.
    assert all(score >= 0.05 for score in expected.values())
    assert index.tolist() == sorted(expected, key=lambda i: -expected[i])
    assert dets[:, 4].tolist() == pytest.approx(sorted(expected.values(), reverse=True))


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(many, method: str):
    boxes, scores, _ = many
    dets, index = soft_nms(boxes, scores, 0.3, method=method, min_score=0.05)
    assert dets.shape == (len(index), 5)
    assert torch.equal(dets[:, :4], boxes[index])
    assert (dets[:-1, 4] >= dets[1:, 4]).all()
    if method == 'naive':
        expected = [i for i in by_definition(boxes, scores, 0.3) if scores[i] >= 0.05]
        assert index.tolist() == expected


def test_torchvision_suppresses_too(many):
    pytest.importorskip('torchvision')
    from torchvision import ops

    boxes, scores, labels = many
    # No quotient of these boxes' areas is this number: with an overlap of exactly 0.4, torchvision's
    # own operator, where it is installed, suppresses on the CPU (float32 0.4 > 0.4) and not on a GPU.
    threshold = 0.41379
    assert ops.nms(boxes, scores, threshold).tolist() == by_definition(boxes, scores, threshold)
    index = ops.batched_nms(boxes, scores, labels, threshold)
    assert index.tolist() == per_class(boxes, scores, labels, threshold)
