"""A pane of frost, drawn.

ImageNet-C lays photographs of frozen panes over its images. Nobody says under which licence these
stand, so they are not used here. What is drawn instead has the colours and the contrast of the
published photographs (means and standard deviations of windows of 224 pixels, each photograph as
often as the published code takes it), with straight needles and feathers over clouds.
"""

from __future__ import annotations

import cv2
import numpy as np

from .blur import smear

# Mean colour, standard deviation of the grey value, and how much of that comes from needles.
PANES = (
    ((80, 149, 165), 16, 0.5),
    ((198, 202, 211), 20, 0.8),
    ((198, 202, 211), 20, 0.8),
    ((144, 159, 172), 26, 0.9),
    ((101, 113, 125), 35, 0.7),
)

# Fields of needles, each of one direction.
FIELDS = 10


def frost_layer(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a pane of frost of one of five kinds.

    Returns:
        (height, width, 3), RGB, 0 to 255.
    """
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
    """Fields of fine needles, and feathers among them, as ice grows."""
    layer: np.ndarray = np.zeros((height, width), np.float32)
    for _ in range(FIELDS):
        seeds = rng.standard_normal((height, width), np.float32)
        seeds *= rng.random((height, width), np.float32) < 0.15
        needles = smear(seeds, 7, 6, rng.uniform(0, 360))
        patch = _smooth(7, height, width, rng)
        layer += needles * np.clip(patch, 0, 1) ** 4  # where the fields overlap, one prevails
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
    """A needle with shorter and darker ones at 60 degrees on both sides."""
    _needle(layer, start, angle, length, shade)
    for place in np.arange(2, length, 2.5):
        root = start + place * np.array([np.cos(angle), np.sin(angle)])
        for turn in (np.pi / 3, -np.pi / 3):
            _needle(layer, root, angle + turn, 0.4 * float(length - place), 0.6 * shade)


def _needle(
    layer: np.ndarray, start: np.ndarray, angle: float, length: float, shade: float
) -> None:
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    # Places in sixteenths of a pixel.
    points = [tuple(round(16 * value) for value in point) for point in (start, end)]
    cv2.line(layer, points[0], points[1], float(shade), 1, cv2.LINE_8, 4)
