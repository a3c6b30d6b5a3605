"""Equal results on the GPU: the stand-ins, torchvision's operators, and the deploy form."""

import mobileone_mm  # isort: skip

import pytest
import torch
from torch import Tensor

from helpers import randomize_
from mobileone_mm.compat.ops import roi_align as roi_align_file
from mobileone_mm.compat.ops.compiled import has_kernel
from mobileone_mm.compat.ops.nms import greedy, nms
from mobileone_mm.compat.ops.softnms import softnms
from mobileone_mm.models import MobileOne


def boxes_and_scores(seed: int, number: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 300
    size = torch.rand(number, 2, generator=generator) * 80
    scores = torch.rand(number, generator=generator)
    return torch.cat((corner, corner + size), 1).to(device), scores.to(device)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('number', [0, 1, 500, 3000])
def test_nms(number: int, offset: int, device: str):
    for seed in range(5):
        boxes, scores = boxes_and_scores(seed, number, device)
        threshold = torch.tensor(0.4, dtype=torch.float32).item()
        expected = greedy(boxes.cpu(), scores.cpu(), threshold, offset)
        for found in (nms(boxes, scores, 0.4, offset), greedy(boxes, scores, threshold, offset)):
            assert found.device == boxes.device
            assert torch.equal(found.cpu(), expected)


def test_softnms(device: str):
    boxes, scores = boxes_and_scores(0, 200, device)
    settings = dict(iou_threshold=0.3, sigma=0.5, min_score=0.05, method=1, offset=0)
    results = []
    for inputs in ((boxes, scores), (boxes.cpu(), scores.cpu())):
        dets = torch.zeros(200, 5, device=inputs[0].device)
        results.append((softnms(*inputs, dets, **settings).cpu(), dets.cpu()))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


@pytest.mark.parametrize('mode', [0, 1])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(ratio: int, aligned: bool, mode: int, device: str, monkeypatch):
    boxes, _ = boxes_and_scores(1, 60, device)
    image = torch.arange(60, device=device).remainder(2).unsqueeze(1).float()
    rois = torch.cat((image, boxes - 20), 1)
    features = torch.randn(2, 4, 40, 50, generator=torch.Generator().manual_seed(0)).to(device)
    grad = torch.randn(60, 4, 5, 3, generator=torch.Generator().manual_seed(1)).to(device)
    settings = dict(aligned_height=5, aligned_width=3, spatial_scale=0.125, sampling_ratio=ratio,
                    pool_mode=mode, aligned=aligned)  # fmt: skip
    results = []
    for compiled in (has_kernel, lambda name, device: False):
        monkeypatch.setattr(roi_align_file, 'has_kernel', compiled)
        output, y, x = (torch.zeros_like(grad) for _ in range(3))
        grad_input = torch.zeros_like(features)
        roi_align_file.roi_align_forward(features, rois, output, y, x, **settings)
        roi_align_file.roi_align_backward(grad, rois, y, x, grad_input, **settings)
        results.append((output, grad_input))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_deploy_form(device: str):
    model = randomize_(MobileOne(arch='s0')).double().to(device).eval()
    deployed = mobileone_mm.reparameterize_model(model)
    image = torch.randn(2, 3, 96, 96, dtype=torch.float64, device=device)
    for before, after in zip(model(image), deployed(image), strict=True):
        assert after.device == image.device
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
