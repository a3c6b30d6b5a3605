"""The stand-ins against mmcv's compiled operators, in an environment that has them."""

import pytest
import torch
from torch import Tensor

import mobileone_mm
from mobileone_mm.compat.mmcv_ext import OPERATORS

if mobileone_mm.compat.status()['mmcv._ext'] != 'native':
    pytest.skip('mmcv has no compiled operators here', allow_module_level=True)

import mmcv._ext as native


def boxes_and_scores(seed: int, number: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 200
    size = torch.rand(number, 2, generator=generator) * 80
    scores = torch.rand(number, generator=generator)
    if seed % 2:  # equal scores, equal boxes, empty boxes
        corner, size = ((part / 20).round() * 20 for part in (corner, size))
        scores = scores.round(decimals=1)
    return torch.cat((corner, corner + size), 1), scores


@pytest.mark.parametrize('offset', [0, 1])
def test_nms(offset: int):
    for seed in range(0, 60, 2):  # the compiled one promises no order of ties
        boxes, scores = boxes_and_scores(seed)
        for threshold in (0.2, 0.5, 0.8):
            expected = native.nms(boxes, scores, iou_threshold=threshold, offset=offset)
            found = OPERATORS['nms'](boxes, scores, iou_threshold=threshold, offset=offset)
            assert torch.equal(found, expected)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', [0, 1, 2])
def test_softnms(method: int, offset: int):
    # Two empty boxes make the compiled Gaussian method give NaN scores.
    for seed in range(0, 20, 2 if method == 2 and not offset else 1):
        boxes, scores = boxes_and_scores(seed)
        results = []
        for operator in (native.softnms, OPERATORS['softnms']):
            dets = boxes.new_zeros(len(boxes), 5)
            index = operator(boxes, scores, dets, iou_threshold=0.3, sigma=0.5, min_score=0.02,
                             method=method, offset=offset)  # fmt: skip
            results.append((index, dets[: len(index)]))
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('mode', [0, 1])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(ratio: int, aligned: bool, mode: int):
    boxes, _ = boxes_and_scores(0, 80)
    rois = torch.cat((torch.arange(80).remainder(2).unsqueeze(1).float(), boxes - 20), 1)
    features = torch.randn(2, 4, 21, 26, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(80, 4, 5, 3, generator=torch.Generator().manual_seed(1))
    settings = dict(aligned_height=5, aligned_width=3, spatial_scale=0.125, sampling_ratio=ratio,
                    pool_mode=mode, aligned=aligned)  # fmt: skip
    results = []
    for kind in (vars(native), OPERATORS):
        output, y, x = (torch.zeros(80, 4, 5, 3) for _ in range(3))
        grad_input = torch.zeros_like(features)
        kind['roi_align_forward'](features, rois, output, y, x, **settings)
        kind['roi_align_backward'](grad, rois, y, x, grad_input, **settings)
        results.append((output, grad_input))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=2e-5)
