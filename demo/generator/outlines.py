"""Convert masks to polygons exactly, for COCO's segmentations."""

from __future__ import annotations

import numpy as np

_Point = tuple[int, int]


def polygons(mask: np.ndarray) -> list[list[int]]:
    """Return the outer borders of a bool mask (H, W) as COCO polygons [x1, y1, x2, y2, ...].

    The corners are between the pixels, so a polygon covers exactly the pixels of its part. Parts
    that touch only at a corner are separate polygons. Holes are filled: COCO's polygons have no
    holes.
    """
    edges = _border_edges(mask)
    rings = []
    while edges:
        rings.append(_ring(edges))
    return [ring for ring in rings if polygon_area(ring) > 0]


def polygon_area(ring: list[int]) -> int:
    """Return the area in pixels, positive for a clockwise ring (an outer border)."""
    x, y = np.asarray(ring[0::2], np.int64), np.asarray(ring[1::2], np.int64)
    return int(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) // 2


def _ring(edges: dict[_Point, list[_Point]]) -> list[int]:
    """Remove the edges of one ring, and return its corners."""
    ring: list[int] = []
    point = start = next(iter(edges))
    heading = (0, 0)
    while start != point or not ring:
        ways = edges[point]
        # Two edges start where two parts touch at a corner; the right turn stays on this part.
        right = (-heading[1], heading[0])
        step = right if right in ways else ways[0]
        ways.remove(step)
        if not ways:
            del edges[point]
        if step != heading:
            ring += point
        point, heading = (point[0] + step[0], point[1] + step[1]), step
    return ring


def _border_edges(mask: np.ndarray) -> dict[_Point, list[_Point]]:
    """Return the unit steps along the border by their start; the mask is on their right."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return {}
    top, left = int(rows[0]), int(columns[0])
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    core = inside[1:-1, 1:-1]
    sides = (
        (inside[:-2, 1:-1], (0, 0), (1, 0)),
        (inside[1:-1, 2:], (1, 0), (0, 1)),
        (inside[2:, 1:-1], (1, 1), (-1, 0)),
        (inside[1:-1, :-2], (0, 1), (0, -1)),
    )
    edges: dict[_Point, list[_Point]] = {}
    for neighbour, (right, down), step in sides:
        starts = np.argwhere(core & ~neighbour) + np.array([top + down, left + right])
        for y, x in starts.tolist():
            edges.setdefault((x, y), []).append(step)
    return edges
