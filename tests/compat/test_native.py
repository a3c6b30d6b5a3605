"""torchvision's compiled operators behind mmcv's: which calls reach them, and equal results."""

from pathlib import Path

import pytest
import torch

import mobileone_mm
from helpers import python, write_files
from mobileone_mm.compat.ops.compiled import has_kernel
from mobileone_mm.compat.ops.nms import greedy, nms

# A torchvision whose compiled operators only count their calls.
FAKE = """
import torch
calls = []
library = torch.library.Library('torchvision', 'DEF')
library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
library.define('roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, '
               'int pooled_width, int sampling_ratio, bool aligned) -> Tensor')
library.define('_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, '
               'int pooled_height, int pooled_width, int batch_size, int channels, int height, '
               'int width, int sampling_ratio, bool aligned) -> Tensor')

def nms(dets, scores, iou_threshold):
    calls.append(('nms', dets.dtype, iou_threshold))
    return torch.arange(len(dets))

def roi_align(input, rois, scale, height, width, ratio, aligned):
    calls.append(('forward', input.dtype, scale, height, width, ratio, aligned))
    return torch.full((len(rois), input.shape[1], height, width), 2.0)

def backward(grad, rois, scale, height, width, b, c, h, w, ratio, aligned):
    calls.append(('backward', (b, c, h, w), scale, height, width, ratio, aligned))
    return torch.full((b, c, h, w), 3.0)

library.impl('nms', nms, 'CPU')
library.impl('roi_align', roi_align, 'CPU')
library.impl('_roi_align_backward', backward, 'CPU')
"""
CALLS = """
import mobileone_mm, numpy, torch, torchvision
from mmcv.ops import RoIAlign, nms
calls = torchvision.calls
assert mobileone_mm.compat.status() == {'torchvision': 'native', 'mmcv._ext': 'stand-in'}
boxes, scores = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8]]), torch.tensor([.1, .2])
assert nms(boxes, scores, 0.4)[1].tolist() == [0, 1]
assert nms(boxes.half(), scores, 0.4)[1].tolist() == [0, 1]
single = float(numpy.float32(0.4))
assert calls == [('nms', torch.float32, single)] * 2, calls
# What torchvision cannot express: offset 1, and scores that do not fit the type of the boxes.
assert nms(boxes, scores, 0.4, offset=1)[1].tolist() == [1]
assert nms(boxes, scores.double(), 0.4)[1].tolist() == [1]
assert len(calls) == 2

calls.clear()
features = torch.zeros(2, 3, 8, 8, requires_grad=True)
rois = torch.tensor([[1., 0, 0, 9, 9]])
output = RoIAlign((5, 4), 0.5, 0)(features, rois)
assert output.shape == (1, 3, 5, 4) and (output == 2).all()
output.sum().backward()
assert (features.grad == 3).all()
settings = (0.5, 5, 4, 0, True)
assert calls == [('forward', torch.float32, *settings), ('backward', (2, 3, 8, 8), *settings)], calls
assert RoIAlign((5, 4))(features.detach().bfloat16(), rois.bfloat16()).dtype == torch.bfloat16
assert len(calls) == 3
# What torchvision has not: maxima, and a deterministic gradient.
RoIAlign((5, 4), 0.5, 0, 'max')(features, rois).sum().backward()
assert len(calls) == 3
torch.use_deterministic_algorithms(True)
features.grad = None
RoIAlign((5, 4), 0.5, 0)(features, rois).sum().backward()
assert len(calls) == 4 and not (features.grad == 3).any()
try:
    RoIAlign((5, 4))(features, torch.full((1, 5), float('nan')))
except ValueError:
    print('fine')
"""


def test_which_calls_reach_torchvision(tmp_path: Path):
    if mobileone_mm.compat.status()['mmcv._ext'] == 'native':
        pytest.skip('mmcv has compiled operators of its own here')
    write_files(tmp_path, {'torchvision/__init__.py': FAKE})
    assert python('-c', CALLS, path=[tmp_path]).stdout.splitlines()[-1] == 'fine'


@pytest.mark.parametrize('threshold', [0.4, 0.5, 1 / 3])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_kept_boxes(dtype: torch.dtype, threshold: float):
    """Boxes on a grid: many overlaps equal the threshold exactly, many scores are equal."""
    if not has_kernel('nms', 'cpu'):
        pytest.skip('torchvision has no compiled operators here')
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        corner = torch.randint(0, 40, (400, 2), generator=generator)
        size = torch.randint(-1, 12, (400, 2), generator=generator)  # empty and inverted boxes too
        boxes = torch.cat((corner, corner + size), 1).to(dtype)
        scores = torch.randint(0, 50, (400,), generator=generator).to(dtype) / 64
        single = torch.tensor(threshold, dtype=torch.float32).item()
        assert torch.equal(nms(boxes, scores, threshold), greedy(boxes, scores, single))
