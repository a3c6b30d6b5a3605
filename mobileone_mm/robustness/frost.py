"""A drawn pane of frost.

ImageNet-C overlays photographs of frozen windows, whose licence is unknown; they are not used here.
The drawn panes have straight needles and feathers over clouds. Their mean colours and standard
deviations are those of windows of 224 pixels in the published photographs, each with the frequency
that it has in the published code.
"""

from __future__ import annotations

import cv2
import numpy as np

from .blur import smear

# Mean colour, standard deviation of the grey value, and the share of needles in it.
PANES = (
    ((80, 149, 165), 16, 0.5),
    ((198, 202, 211), 20, 0.8),
    ((198, 202, 211), 20, 0.8),
    ((144, 159, 172), 26, 0.9),
    ((101, 113, 125), 35, 0.7),
)

# Number of fields of needles; each field has one direction.
FIELDS = 10


def frost_layer(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a pane of one of five kinds: (height, width, 3), RGB, 0 to 255."""
    colour, spread, share = PANES[rng.integers(len(PANES))]
    needles = _standard(_needles(height, width, rng))
    clouds = _standard(_smooth(4, height, width, rng).astype(np.float64))
    grey = _standard(share * needles + (1 - share) * clouds)
    return np.clip(np.array(colour) + spread * grey[..., None], 0, 255)


def _standard(layer: np.ndarray) -> np.ndarray:
    return (layer - layer.mean()) / max(layer.std(), 1e-6)


def _smooth(cells: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    cell = rng.random((cells, cells), np.float32)
    return cv2.resize(cell, (width, height), interpolation=cv2.INTER_CUBIC)


def _needles(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw fields of fine needles with feathers among them."""
    layer: np.ndarray = np.zeros((height, width), np.float32)
    for _ in range(FIELDS):
        seeds = rng.standard_normal((height, width), np.float32)
        seeds *= rng.random((height, width), np.float32) < 0.15
        needles = smear(seeds, 7, 6, rng.uniform(0, 360))
        patch = _smooth(7, height, width, rng)
        layer += needles * np.clip(patch, 0, 1) ** 4  # one field dominates where two overlap
    feathers: np.ndarray = np.zeros((height, width), np.float32)
    for _ in range(height * width // 2000):
        start = rng.uniform((0, 0), (width, height))
        _feather(feathers, start, rng.uniform(0, 2 * np.pi), rng.uniform(10, 50), rng.uniform(0, 1))
    feathers = cv2.GaussianBlur(feathers, (0, 0), 0.7)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.6)
    return _standard(layer.astype(np.float64)) + 0.4 * _standard(feathers.astype(np.float64))


def _feather(
    layer: np.ndarray, start: np.ndarray, angle: float, length: float, shade: float
) -> None:
    """Draw a needle with shorter and darker needles at 60 degrees on both sides."""
    _needle(layer, start, angle, length, shade)
    for place in np.arange(2, length, 2.5):
        root = start + place * np.array([np.cos(angle), np.sin(angle)])
        for turn in (np.pi / 3, -np.pi / 3):
            _needle(layer, root, angle + turn, 0.4 * float(length - place), 0.6 * shade)


def _needle(
    layer: np.ndarray, start: np.ndarray, angle: float, length: float, shade: float
) -> None:
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    # OpenCV takes sixteenths of a pixel.
    points = [tuple(round(16 * value) for value in point) for point in (start, end)]
    cv2.line(layer, points[0], points[1], float(shade), 1, cv2.LINE_8, 4)
