"""RoIAlign (He et al., arXiv 1703.06870), forward and backward.

Each bin of the output is the mean or the maximum over sample points, and each point is a bilinear
mean of four pixels. Bilinear weights are products of a row's and a column's weight, so the points of
a RoI are two matrix products.

torchvision's compiled operators compute the means where they are installed. They have no maxima.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .compiled import at_least_float, has_kernel

_MAX_POOL = 0


class Grid(NamedTuple):
    """Bins of a RoI and the sample points in them, in torchvision's order."""

    spatial_scale: float  # feature pixels per image pixel
    aligned_height: int  # rows of bins
    aligned_width: int  # columns of bins
    sampling_ratio: int  # points per bin and direction; 0 takes one for each pixel begun
    aligned: bool  # shift by half a pixel, and allow RoIs smaller than one pixel


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    pool_mode: int,
    **settings: Any,
) -> None:
    """Fill ``output`` (R, C, I, J) with the pooled features of ``input`` (B, C, H, W).

    ``rois`` (R, 5) are rows of image index, x1, y1, x2, y2 in the coordinates of the image, and
    ``settings`` the fields of :class:`Grid`. ``pool_mode`` 0 takes the maximum of a bin's points, 1 the
    mean. For maxima, ``argmax_y`` and ``argmax_x`` (R, C, I, J) receive the coordinates of the points,
    -1 where a bin has none. RoIs that are not finite, or of negative size with ``aligned``, are a
    ValueError; torchvision's operator does not check this on a GPU.
    """
    features, grid = at_least_float(input), Grid(**settings)
    rois = rois.to(features.dtype)
    if pool_mode == _MAX_POOL:
        _fill_maxima(features, rois, grid, output, argmax_y, argmax_x)
    elif _use_compiled('roi_align', rois, grid):
        output.copy_(torch.ops.torchvision.roi_align(features, rois, *grid))
    else:
        _fill_means(features, rois, grid, output)


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    pool_mode: int,
    **settings: Any,
) -> None:
    """Add to ``grad_input`` (B, C, H, W) the gradient of the features; arguments as forward."""
    grad, grid = at_least_float(grad_output), Grid(**settings)
    rois = rois.to(grad.dtype)
    if pool_mode == _MAX_POOL:
        _add_grad_of_maxima(grad, rois, grid, (argmax_y, argmax_x), grad_input)
    elif not torch.are_deterministic_algorithms_enabled() and _use_compiled(
        '_roi_align_backward', rois, grid
    ):
        grad_input += torch.ops.torchvision._roi_align_backward(
            grad, rois, *grid[:3], *grad_input.shape, *grid[3:]
        )
    else:
        _add_grad_of_means(grad, rois, grid, grad_input)


def _use_compiled(name: str, rois: Tensor, grid: Grid) -> bool:
    if not has_kernel(name, rois.device.type):
        return False
    if rois.device.type == 'cpu':  # elsewhere the check would wait for the device
        _check(rois, grid)
    return True


def _check(rois: Tensor, grid: Grid) -> None:
    if not torch.isfinite(rois).all():
        raise ValueError('rois: some coordinates are not finite')
    if grid.aligned and bool((rois[:, 3:] < rois[:, 1:3]).any()):
        raise ValueError('rois: with aligned=True widths and heights must not be negative')


def _regions(rois: Tensor, grid: Grid, *sizes: int) -> Iterator[tuple[int, int, _Axis, _Axis]]:
    """Yield number, image, rows and columns of each RoI that has sample points."""
    _check(rois, grid)
    bins = (grid.aligned_height, grid.aligned_width)
    corners = rois[:, [2, 1, 4, 3]] * grid.spatial_scale - (0.5 if grid.aligned else 0.0)
    start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not grid.aligned:
        size = size.clamp(min=1)
    step = size / size.new_tensor(bins)
    ratio = grid.sampling_ratio
    points = torch.full_like(step, ratio) if ratio > 0 else step.ceil()
    for number, counts in enumerate(points.long().tolist()):
        if all(counts):
            rows, columns = (
                _Axis(start[number, n, None], step[number, n, None], bins[n], counts[n], sizes[n])
                for n in (0, 1)
            )
            yield number, int(rois[number, 0]), rows, columns


class _Axis:
    """Sample points of a RoI along one axis, and the pixels around them."""

    def __init__(self, start: Tensor, step: Tensor, bins: int, points: int, size: int) -> None:
        bin_, point = (torch.arange(count, device=start.device) for count in (bins, points))
        self.places = start + bin_[:, None] * step + (point + 0.5) * (step / points)
        first, last = self.places[[0, -1], [0, -1]].clamp(0, size - 1).tolist()
        self.pixels = slice(int(first), int(last) + 2)
        self._size = size

    def weights(self, places: Tensor) -> Tensor:
        """Return for coordinates (...) the linear weights of the pixels: (..., pixels).

        The weights are 0 at a coordinate that is more than a pixel off the map.
        """
        inside = (places >= -1) & (places <= self._size)
        pixel = torch.arange(self._size, device=places.device)[self.pixels]
        distance = (places.clamp(0, self._size - 1).unsqueeze(-1) - pixel).abs()
        return (1 - distance).clamp(min=0) * inside.unsqueeze(-1)


def _fill_means(features: Tensor, rois: Tensor, grid: Grid, output: Tensor) -> None:
    output.zero_()
    for number, image, y, x in _regions(rois, grid, *features.shape[2:]):
        rows, columns = (axis.weights(axis.places).mean(1) for axis in (y, x))
        output[number] = rows @ (features[image, :, y.pixels, x.pixels] @ columns.t())


def _add_grad_of_means(grad: Tensor, rois: Tensor, grid: Grid, total: Tensor) -> None:
    for number, image, y, x in _regions(rois, grid, *total.shape[2:]):
        rows, columns = (axis.weights(axis.places).mean(1) for axis in (y, x))
        total[image, :, y.pixels, x.pixels] += rows.t() @ grad[number] @ columns


def _fill_maxima(
    features: Tensor, rois: Tensor, grid: Grid, output: Tensor, argmax_y: Tensor, argmax_x: Tensor
) -> None:
    lowest = -10000.0  # mmcv starts the search at this value, and keeps it in a bin without points
    for target, first in ((output, lowest), (argmax_y, -1), (argmax_x, -1)):
        target.fill_(first)
    for number, image, y, x in _regions(rois, grid, *features.shape[2:]):
        rows, columns = (axis.weights(axis.places.flatten()) for axis in (y, x))
        value = rows @ (features[image, :, y.pixels, x.pixels] @ columns.t())
        value = value.unflatten(2, x.places.shape).unflatten(1, y.places.shape).transpose(2, 3)
        best, winner = value.flatten(3).max(3)  # (C, I, J)
        output[number] = best.clamp(min=lowest)
        per_bin = (y.places[:, None, :, None], x.places[None, :, None, :])
        for places, argmax in zip(per_bin, (argmax_y, argmax_x), strict=True):
            every = places.expand(value.shape[1:]).flatten(2).expand(len(best), -1, -1, -1)
            found = every.gather(3, winner.unsqueeze(3)).squeeze(3)
            argmax[number] = found.where(best > lowest, -1.0)


def _add_grad_of_maxima(
    grad: Tensor, rois: Tensor, grid: Grid, argmax: tuple[Tensor, Tensor], total: Tensor
) -> None:
    for number, image, y, x in _regions(rois, grid, *total.shape[2:]):
        places = [argmax[n][number].to(grad.dtype).flatten(1) for n in (0, 1)]  # (C, I * J)
        share = (grad[number].flatten(1) * (places[0] != -1)).unsqueeze(2) * y.weights(places[0])
        total[image, :, y.pixels, x.pixels] += share.transpose(1, 2) @ x.weights(places[1])
