"""Drawings of bright cloth: umbrella, kite."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, ellipse, hsv, mix, smooth

_WHITE = (252, 250, 246)


def umbrella(canvas: Canvas, rng: np.random.Generator) -> None:
    """Open umbrella from the side: panels in two colours, scalloped rim, hooked handle."""
    hue = rng.choice([0.97, 0.9, 0.78, 0.47]) + rng.uniform(-0.02, 0.02)
    dark = hsv(hue, 0.82, 0.86)
    light = mix(dark, _WHITE, 0.86) if rng.random() < 0.7 else hsv(hue + 0.16, 0.7, 0.98)
    handle = [(0.0, -0.1), (0.0, 0.62), (0.05, 0.78), (0.17, 0.84), (0.29, 0.76), (0.3, 0.62)]
    canvas.stroke([(0, -0.1), (0, 0.62)], 0.06, (196, 200, 208))
    canvas.stroke(smooth(handle[1:], closed=False), 0.1, (150, 92, 52))
    canvas.stroke([(0, -0.8), (0, -0.94)], 0.06, (196, 200, 208))
    edges = np.linspace(-1, 1, 6)
    for index in range(5):
        # A rib is half an ellipse: all ribs meet at the top.
        left, right = (_rib(edge) for edge in edges[index : index + 2])
        middle = (edges[index] + edges[index + 1]) / 2
        scallop = [(right[-1][0], right[-1][1]), (0.98 * middle, -0.14), (left[-1][0], left[-1][1])]
        panel = np.concatenate([left, smooth(scallop[::-1], closed=False), right[::-1]])
        canvas.shape(panel, dark if index % 2 == 0 else light)
    dome = np.concatenate([_rib(-1), _rib(1)[::-1]])
    canvas.volume(dome, 0.36)


def _rib(edge: float) -> np.ndarray:
    angle = np.linspace(np.pi / 2, 0, 14)
    return np.stack([edge * np.cos(angle), 0.02 - 0.86 * np.sin(angle)], axis=1)


def kite(canvas: Canvas, rng: np.random.Generator) -> None:
    """Diamond of four panels in two colours, with a waving tail of bows."""
    hue = rng.choice([0.3, 0.84, 0.52, 0.14]) + rng.uniform(-0.03, 0.03)
    first, second = hsv(hue, 0.82, 0.9), hsv(hue + rng.choice([0.42, 0.55]), 0.78, 0.97)
    sway = rng.uniform(0.14, 0.24)
    tail = smooth([(0.0, 0.3), (-sway, 0.54), (sway, 0.8), (-0.4 * sway, 1.04)], closed=False)
    canvas.stroke(tail, 0.06, mix(first, _WHITE, 0.5))
    for index, color in ((8, second), (16, first), (24, second)):
        x, y = tail[index]
        for side in (-1, 1):
            bow = [(x, y), (x + 0.17 * side, y - 0.09), (x + 0.17 * side, y + 0.09)]
            canvas.shape(bow, color, 0.8)
        canvas.shape(ellipse(x, y, 0.05, 0.05), _WHITE, 0.6)
    top, right, bottom, left = (0, -0.98), (0.66, -0.4), (0, 0.36), (-0.66, -0.4)
    cross = (0.0, -0.4)
    panels = ((top, right), (right, bottom), (bottom, left), (left, top))
    for index, (start, stop) in enumerate(panels):
        canvas.shape([cross, start, stop], (first, second)[index % 2], 0.7)
    diamond = [top, right, bottom, left]
    canvas.volume(diamond, 0.34)
    canvas.stroke([*diamond, top], 0.02, (60, 44, 60), 0)
    canvas.shape(ellipse(0, -0.4, 0.11, 0.11), _WHITE, 0.7)
