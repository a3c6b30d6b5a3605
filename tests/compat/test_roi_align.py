"""RoIAlign against its definition, point by point, and its gradients against differences."""

import itertools
import math

import pytest
import torch
from mmcv.ops import RoIAlign
from torch import Tensor

import mobileone_mm

BINS = (3, 2)
ROIS = torch.tensor(
    [
        [0, 2.3, 1.1, 14.9, 17.2],
        [1, -9.0, -5.0, 6.0, 30.0],  # over the edges
        [1, 18.0, 3.0, 60.0, 8.0],
        [0, 5.0, 5.0, 5.4, 5.2],  # smaller than a pixel
        [0, 7.0, 7.0, 7.0, 7.0],  # a point
        [1, -80.0, -80.0, -60.0, -60.0],  # off the map
    ],
    dtype=torch.float64,
)


@pytest.fixture
def features() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64)


def bilinear(plane: Tensor, y: float, x: float) -> float:
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    row = plane[top].lerp(plane[min(top + 1, height - 1)], y - top)
    return row[left].lerp(row[min(left + 1, width - 1)], x - left).item()


def by_definition(features, rois, scale, ratio, mode, aligned) -> Tensor:
    output = features.new_zeros(len(rois), features.shape[1], *BINS)
    for n, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        step_y, step_x = height / BINS[0], width / BINS[1]
        rows = ratio or math.ceil(step_y)
        columns = ratio or math.ceil(step_x)
        for c, i, j in itertools.product(range(features.shape[1]), *map(range, BINS)):
            ys = [y1 + (i + (a + 0.5) / rows) * step_y for a in range(rows)]
            xs = [x1 + (j + (b + 0.5) / columns) * step_x for b in range(columns)]
            values = [bilinear(features[int(image), c], y, x) for y in ys for x in xs]
            if mode == 'avg':
                output[n, c, i, j] = sum(values) / max(len(values), 1)
            else:  # mmcv's start value stays where there are no points
                output[n, c, i, j] = max(values, default=-10000.0)
    return output


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 3])
def test_forward(features: Tensor, ratio: int, aligned: bool, mode: str):
    pool = RoIAlign(BINS, 0.5, ratio, mode, aligned)
    expected = by_definition(features, ROIS, 0.5, ratio, mode, aligned)
    torch.testing.assert_close(pool(features, ROIS), expected, rtol=1e-10, atol=1e-12)
    half = pool(features.float(), ROIS.float())
    torch.testing.assert_close(half, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_backward(features: Tensor, ratio: int, aligned: bool, mode: str):
    pool = RoIAlign(BINS, 0.5, ratio, mode, aligned)
    small = features[:, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: pool(f, ROIS), (small,), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types(features: Tensor, dtype: torch.dtype):
    source = features.to(dtype).requires_grad_()
    output = RoIAlign(BINS, 0.5, 2)(source, ROIS.to(dtype))
    output.sum().backward()
    assert output.dtype == source.grad.dtype == dtype
    expected = by_definition(source.detach().double(), ROIS.to(dtype).double(), 0.5, 2, 'avg', True)
    torch.testing.assert_close(output.double(), expected, rtol=2e-2, atol=2e-2)


def test_no_rois(features: Tensor):
    source = features.clone().requires_grad_()
    for mode in ('avg', 'max'):
        output = RoIAlign(BINS, 1.0, 0, mode)(source, ROIS[:0])
        assert output.shape == (0, 3, *BINS)
        output.sum().backward()
    assert torch.equal(source.grad, torch.zeros_like(features))


def test_bad_rois(features: Tensor):
    with pytest.raises((ValueError, RuntimeError), match='negative'):
        RoIAlign(BINS)(features, torch.tensor([[0.0, 5, 5, 2, 9]], dtype=torch.float64))
    if mobileone_mm.compat.status()['mmcv._ext'] == 'stand-in':
        with pytest.raises(ValueError, match='not finite'):
            RoIAlign(BINS)(features, torch.full((1, 5), math.nan, dtype=torch.float64))
