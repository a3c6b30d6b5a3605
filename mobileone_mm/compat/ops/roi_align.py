"""RoIAlign (He et al., arXiv 1703.06870), forward and backward, without a compiler.

Each output bin is a weighted sum of pixels, four for each of its sample points. Bins have unequal
numbers of points if ``sampling_ratio`` is 0, which is just what ``embedding_bag`` is made for: a
bag for each bin in the forward pass and, since the map is linear, a bag for each pixel backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_MAX_POOL = 0
#: Sample points worked on at once (bounds memory: about 100 bytes each, plus channels for maxima).
_POINTS = 1 << 20


class _Points(NamedTuple):
    """Sample points of some RoIs, bin after bin."""

    y: Tensor  # (T,) in pixels of the feature map
    x: Tensor
    image: Tensor  # (T,) index in the batch
    bin: Tensor  # (T,) number of the bin the point belongs to
    per_bin: Tensor  # (bins,) number of points


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` with the pooled features; for maxima also where they were found.

    Args:
        input: (B, C, H, W) features.
        rois: (R, 5) rows image index, x1, y1, x2, y2 in the coordinates of the image.
        output: (R, C, aligned_height, aligned_width), filled in place.
        argmax_y: As ``output`` for maxima (row of the sample point, -1 if a bin has none), else
            empty.
        argmax_x: The same for the column.
        aligned_height: Rows of bins.
        aligned_width: Columns of bins.
        spatial_scale: Feature pixels per image pixel.
        sampling_ratio: Points per bin and direction; 0 takes one for each pixel begun.
        pool_mode: 0 for the maximum of a bin's points, 1 for their mean.
        aligned: Shift by half a pixel, and allow RoIs smaller than one pixel.

    Raises:
        ValueError: For RoIs that are not finite, or of negative size with ``aligned``.
    """
    channels, height, width = input.shape[1:]
    features = _at_least_float(input).permute(0, 2, 3, 1).reshape(-1, channels)
    bins = (aligned_height, aligned_width)
    outputs = (output, argmax_y, argmax_x) if pool_mode == _MAX_POOL else (output,)
    for part, points in _parts(rois, features, bins, spatial_scale, sampling_ratio, aligned):
        index, weight = _pixels(points.y, points.x, points.image, height, width)
        pool = _maxima if pool_mode == _MAX_POOL else _means
        for target, value in zip(outputs, pool(points, features, index, weight), strict=True):
            target[part] = value.view(-1, *bins, channels).permute(0, 3, 1, 2).to(target.dtype)


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to ``grad_input`` (B, C, H, W) the gradient by the features; arguments as forward."""
    batch, channels, height, width = grad_input.shape
    grad = _at_least_float(grad_output)
    if pool_mode == _MAX_POOL:
        grad_input += _scatter_maxima(grad, rois, argmax_y, argmax_x, grad_input.shape)
        return
    bins = (aligned_height, aligned_width)
    for part, points in _parts(rois, grad, bins, spatial_scale, sampling_ratio, aligned):
        index, weight = _pixels(points.y, points.x, points.image, height, width)
        weight = weight / points.per_bin[points.bin].unsqueeze(1)
        rows = grad[part].permute(0, 2, 3, 1).reshape(-1, channels)
        pixel, order = index.flatten().sort()
        count = pixel.bincount(minlength=batch * height * width)
        # Tap k belongs to point k // 4: the bags of the forward pass, seen from the pixels.
        total = embedding_bag(
            points.bin[order // 4],
            rows,
            count.cumsum(0) - count,
            mode='sum',
            per_sample_weights=weight.flatten()[order],
        )
        grad_input += total.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _parts(
    rois: Tensor,
    like: Tensor,
    bins: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[slice, _Points]]:
    """Sample points of successive RoIs, not too many at once."""
    if not torch.isfinite(rois).all():
        raise ValueError('rois: some coordinates are not finite')
    corners = rois[:, 1:].to(like.dtype) * spatial_scale - (0.5 if aligned else 0.0)
    start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    elif bool((size < 0).any()):
        raise ValueError('rois: with aligned=True widths and heights must not be negative')
    step = size / size.new_tensor([bins[1], bins[0]])
    if sampling_ratio > 0:
        grid = torch.full_like(step, sampling_ratio, dtype=torch.long)
    else:
        grid = step.ceil().long()
    number = grid.prod(1) * (bins[0] * bins[1])
    first = 0
    for last in _ends(number):
        part = slice(first, last)
        yield part, _points(rois[part, 0].long(), start[part], step[part], grid[part], bins)
        first = last


def _ends(number: Tensor) -> list[int]:
    """Where to cut the RoIs, given their numbers of points."""
    ends, total = [], 0
    for position, count in enumerate(number.tolist()):
        if total and total + count > _POINTS:
            ends.append(position)
            total = 0
        total += count
    return [*ends, len(number)] if len(number) else []


def _points(
    image: Tensor, start: Tensor, step: Tensor, grid: Tensor, bins: tuple[int, int]
) -> _Points:
    """Enumerate the points: RoI, bin row, bin column, point row, point column."""
    cells = bins[0] * bins[1]
    per_bin = grid.prod(1)
    roi = torch.arange(len(image), device=image.device).repeat_interleave(per_bin * cells)
    before = (per_bin * cells).cumsum(0) - per_bin * cells
    local = torch.arange(len(roi), device=image.device) - before[roi]
    cell = local.div(per_bin[roi], rounding_mode='floor')
    inner = local - cell * per_bin[roi]
    columns = grid[:, 0][roi]
    row = inner.div(columns, rounding_mode='floor')
    place = torch.stack((inner - row * columns, row), 1)
    bin_row = cell.div(bins[1], rounding_mode='floor')
    corner = torch.stack((cell - bin_row * bins[1], bin_row), 1)
    step_of = step[roi]
    xy = start[roi] + corner * step_of + (place + 0.5) * step_of / grid[roi]
    return _Points(
        y=xy[:, 1],
        x=xy[:, 0],
        image=image[roi],
        bin=roi * cells + cell,
        per_bin=per_bin.repeat_interleave(cells),
    )


def _pixels(y: Tensor, x: Tensor, image: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Flat pixel indices and bilinear weights (..., 4); weight 0 beyond a pixel off the map."""
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    low, right = y - top, x - left
    top_row, left_column = top.long(), left.long()
    rows = torch.stack((top_row, (top_row + 1).clamp(max=height - 1)), -1)
    columns = torch.stack((left_column, (left_column + 1).clamp(max=width - 1)), -1)
    index = (image.unsqueeze(-1) * height + rows).unsqueeze(-1) * width + columns.unsqueeze(-2)
    vertical = torch.stack((1 - low, low), -1) * inside.unsqueeze(-1)
    horizontal = torch.stack((1 - right, right), -1)
    weight = vertical.unsqueeze(-1) * horizontal.unsqueeze(-2)
    return index.flatten(-2), weight.flatten(-2)


def _means(points: _Points, features: Tensor, index: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Mean of the points of each bin: ((bins, C),); 0 for a bin without points."""
    weight = weight / points.per_bin[points.bin].unsqueeze(1)
    first = (points.per_bin.cumsum(0) - points.per_bin) * 4
    bags = index.flatten(), features, first
    return (embedding_bag(*bags, mode='sum', per_sample_weights=weight.flatten()),)


def _maxima(points: _Points, features: Tensor, index: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Largest value among the points of each bin, and the row and column of the first such."""
    value = embedding_bag(index, features, mode='sum', per_sample_weights=weight)
    bins, channels = len(points.per_bin), value.shape[1]
    owner = points.bin.unsqueeze(1).expand_as(value)
    # mmcv starts the search at this value, and keeps it where a bin has no points.
    best = value.new_full((bins, channels), -10000.0).scatter_reduce(0, owner, value, 'amax')
    number = torch.arange(len(value), device=value.device).unsqueeze(1)
    number = torch.where(value == best[points.bin], number, len(value))
    nobody = number.new_full((bins, channels), len(value))
    winner = nobody.scatter_reduce(0, owner, number, 'amin')
    y, x = (torch.cat((axis, axis.new_full((1,), -1.0)))[winner] for axis in (points.y, points.x))
    return best, y, x


def _scatter_maxima(
    grad: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, shape: torch.Size
) -> Tensor:
    _, channels, height, width = shape
    channel = torch.arange(channels, device=grad.device).view(1, -1, 1, 1)
    plane = rois[:, 0].long().view(-1, 1, 1, 1) * channels + channel
    y, x = argmax_y.to(grad.dtype), argmax_x.to(grad.dtype)
    index, weight = _pixels(y, x, plane.expand_as(y), height, width)
    share = weight * (grad * (y != -1)).unsqueeze(-1)
    total = grad.new_zeros(shape.numel()).index_add_(0, index.flatten(), share.flatten())
    return total.view(shape)


def _at_least_float(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
