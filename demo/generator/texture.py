"""Noise and soft shapes for backgrounds, as float32 arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .canvas import Color


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float], octaves: int = 3
) -> np.ndarray:
    """Return smooth noise, about -1 to 1, with ``cells`` grains along each side.

    Every octave has twice the grains and half the height of the previous one.
    """
    total = np.zeros((2, 2), np.float32)
    height = 1.0
    for octave in range(octaves):
        grid = tuple(
            max(2, min(side, round(cell * 2**octave)))
            for side, cell in zip(shape, cells, strict=True)
        )
        # Resizing step by step is faster than resizing each octave to the full size.
        total = _grow(total, grid) + height * rng.uniform(-1, 1, grid).astype(np.float32)
        height /= 2
    return _grow(total, shape)


def _grow(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = shape
    return np.asarray(Image.fromarray(values).resize((columns, rows), Image.Resampling.BICUBIC))


def grain(rng: np.random.Generator, shape: tuple[int, int], height: float) -> np.ndarray:
    """Return independent values for each pixel, uniform from -height to height."""
    values = rng.integers(-127, 128, shape, dtype=np.int8)
    return values * np.float32(height / 127)


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a smooth step from 0 (up to ``low``) to 1 (from ``high``)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def gradient(colors: Sequence[Color], position: np.ndarray) -> np.ndarray:
    """Return the colors at positions 0 to 1 of a gradient: (3, *position's shape)."""
    stops = np.linspace(0, 1, len(colors))
    channels = zip(*colors, strict=True)
    return np.stack([np.interp(position, stops, channel) for channel in channels]).astype(
        np.float32
    )


def blend(image: np.ndarray, color: Color | np.ndarray, share: np.ndarray) -> None:
    """Mix a color, or an array of the image's shape, into an image (3, rows, columns) in place.

    ``share`` (rows, columns) is from 0 to 1.
    """
    touched = np.flatnonzero(share.max(axis=1) > 0)
    if not len(touched):
        return
    rows = slice(int(touched[0]), int(touched[-1]) + 1)
    paint = np.asarray(color, np.float32)
    paint = paint.reshape(3, 1, 1) if paint.ndim == 1 else paint
    if paint.shape[1] > 1:
        paint = paint[:, rows]
    image[:, rows] += (paint - image[:, rows]) * share[rows]


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Return the distance from (x, y) divided by the radius, float32 (rows, columns)."""
    down = (np.arange(shape[0], dtype=np.float32) + 0.5 - y) / radius
    along = (np.arange(shape[1], dtype=np.float32) + 0.5 - x) / radius
    return np.sqrt(down[:, None] ** 2 + along[None] ** 2)
