"""Paint the lower half of the backgrounds: sea, beach, meadow and street.

Each painter changes image and labels in place, below the horizon and slightly above it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Color, hsv, mix
from .texture import blend, gradient, grain, noise, ramp
from .vocabulary import ADE_STUFF


@dataclass(frozen=True)
class View:
    """A background that a painter changes.

    Attributes:
        image: float32 (3, size, size), about 0 to 255.
        stuff: ADE20K's index of the surface, uint8 (size, size).
        horizon: Its row.
        haze: Color of distant things.
        lamp: Column of sun or moon.
    """

    image: np.ndarray
    stuff: np.ndarray
    horizon: int
    haze: Color
    lamp: float

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return self.stuff.shape[0]

    @property
    def near(self) -> np.ndarray:
        """Nearness of each row: 0 down to the horizon, 1 at the lower edge."""
        rows = np.arange(self.size, dtype=np.float32) - self.horizon
        return np.clip(rows / max(1, self.size - self.horizon), 0, 1)

    def fill(self, region: np.ndarray, color: np.ndarray | Color, name: str) -> None:
        """Paint and label a region; ``region`` is from 0 to 1."""
        blend(self.image, color, region)
        self.stuff[region > 0.5] = ADE_STUFF[name]

    def below(self, row: np.ndarray | float) -> np.ndarray:
        """Return the region (0 to 1) below a row, or below one row for each column."""
        line = np.broadcast_to(np.asarray(row, np.float32), (self.size,))
        return np.clip(np.arange(self.size, dtype=np.float32)[:, None] + 1 - line[None], 0, 1)

    def receding(self, texture: np.ndarray) -> np.ndarray:
        """Return a texture in perspective: its rows are closer together at the horizon."""
        rows = (self.size - 1) * (1.25 - 0.25 / (0.2 + 0.8 * self.near))
        return texture[np.clip(rows, 0, self.size - 1).astype(int)]

    def ridge(
        self, rng: np.random.Generator, cells: float, row: float, height: float
    ) -> np.ndarray:
        """Return the row of a hilly line by column, up to ``height`` pixels above ``row``."""
        return row - height * (0.5 + 0.5 * noise(rng, (2, self.size), (2, cells), 3)[0])


def paint_sea(view: View, rng: np.random.Generator) -> None:
    """Paint water with waves and the reflection of sun or moon, and sometimes a distant coast."""
    image, size, horizon, haze = view.image, view.size, view.horizon, view.haze
    if rng.random() < 0.5:
        ridge = view.ridge(rng, rng.uniform(2, 4), horizon + 0.02 * size, 0.14 * size)
        view.fill(view.below(ridge), mix(haze, (70, 100, 120), 0.45), 'mountain')
    near = view.near
    hue = rng.uniform(0.5, 0.57)
    water = gradient(
        [mix(haze, hsv(hue, 0.35, 0.75), 0.6), hsv(hue, 0.48, 0.66), hsv(hue + 0.02, 0.58, 0.56)],
        near,
    )[..., None]
    view.fill(view.below(horizon), water, 'sea')
    waves = view.receding(noise(rng, (size, size), (60, 9), 2)) * np.sqrt(near)[:, None]
    image += 14 * waves
    foam = ramp(waves, 0.55, 0.95)
    columns = np.arange(size, dtype=np.float32)
    path = np.exp(-(((columns[None] - view.lamp) / (size * (0.05 + 0.12 * near[:, None]))) ** 2))
    sparkle = path * ramp(waves, 0.0, 0.5) * (near > 0)[:, None]
    blend(image, (255, 255, 255), np.clip(0.3 * foam + 0.5 * sparkle, 0, 1))


def paint_beach(view: View, rng: np.random.Generator) -> None:
    """Paint sand in front of a strip of sea with surf."""
    image, size, horizon, haze = view.image, view.size, view.horizon, view.haze
    paint_sea(view, rng)
    depth = size - horizon
    shore = horizon + depth * (0.2 + 0.05 * noise(rng, (2, size), (2, 3), 2)[0])
    sand = view.below(shore)
    surf = view.below(shore - 0.045 * depth) - view.below(shore + 0.01 * depth)
    pale = hsv(rng.uniform(0.1, 0.125), 0.3, 0.94)
    near = view.near
    tone = gradient([mix(pale, haze, 0.3), pale, mix(pale, (176, 132, 84), 0.3)], near)[..., None]
    view.fill(sand, tone, 'sand')
    image += 7 * sand * view.receding(noise(rng, (size, size), (16, 5), 3))
    image += sand * grain(rng, (size, size), 9)
    wet = np.clip(view.below(shore) - view.below(shore + 0.09 * depth), 0, 1)
    blend(image, mix(pale, (120, 96, 74), 0.5), 0.4 * wet)
    blend(image, (255, 255, 255), 0.85 * np.clip(surf, 0, 1))


def paint_meadow(view: View, rng: np.random.Generator) -> None:
    """Paint hills, a row of distant trees and grass with flowers."""
    image, size, horizon, haze = view.image, view.size, view.horizon, view.haze
    hue = rng.uniform(0.24, 0.31)
    ridge = view.ridge(rng, rng.uniform(2, 4), horizon + 0.02 * size, 0.2 * size)
    view.fill(view.below(ridge), mix(haze, (96, 128, 150), 0.5), 'mountain')
    trees = view.ridge(rng, size / 14, horizon + 0.01 * size, 0.07 * size)
    view.fill(view.below(trees), mix(haze, hsv(hue + 0.05, 0.42, 0.5), 0.75), 'tree')
    edge = horizon + 0.02 * size * noise(rng, (2, size), (2, 3), 1)[0]
    near = view.near
    tone = gradient(
        [mix(haze, hsv(hue, 0.4, 0.78), 0.7), hsv(hue, 0.42, 0.72), hsv(hue + 0.02, 0.48, 0.58)],
        near,
    )[..., None]
    grass = view.below(edge)
    view.fill(grass, tone, 'grass')
    patches = view.receding(noise(rng, (size, size), (8, 5), 2))
    blades = noise(rng, (size, size), (size / 9, size / 2.5), 1) * near[:, None]
    image += grass * (7 * patches + 11 * blades)
    petals = [(255, 255, 250), (255, 240, 150), (246, 200, 214)]
    for _ in range(int(rng.integers(10, 40))):
        row = int(horizon + (size - 1 - horizon) * rng.uniform(0.1, 1))
        column, reach = int(rng.integers(0, size)), 1 + (row - horizon) * 3 // size
        petal = np.reshape(petals[int(rng.integers(3))], (3, 1, 1))
        image[:, row : row + reach, column : column + reach] = petal


def paint_street(view: View, rng: np.random.Generator) -> None:
    """Paint pale houses behind a pavement and a road with lane marks."""
    image, size, horizon, haze = view.image, view.size, view.horizon, view.haze
    left = -int(rng.integers(0, size // 8 + 1))
    while left < size:
        width = int(size * rng.uniform(0.12, 0.24)) + 2
        _paint_house(view, left, left + width, rng)
        left += width
    depth = size - horizon
    kerb = horizon + 0.24 * depth
    pavement = view.below(horizon)
    view.fill(pavement, (202, 196, 188), 'sidewalk')
    tiles = np.arange(size, dtype=np.float32)[None] - size / 2
    near = view.near[:, None]
    joints = np.abs(tiles / (0.05 + 0.1 * size * (0.4 + near)) % 1 - 0.5) > 0.47
    image -= 12 * pavement * joints
    view.fill(view.below(kerb), mix((122, 124, 134), haze, 0.12), 'road')
    blend(image, (228, 224, 216), view.below(kerb - 0.03 * depth) - view.below(kerb))
    image += pavement * grain(rng, (size, size), 7)
    image += 6 * pavement * view.receding(noise(rng, (size, size), (10, 4), 3))
    dash = (tiles / (0.22 * size) + rng.uniform(0, 1)) % 1 < 0.55
    lane = view.below(horizon + 0.62 * depth) - view.below(horizon + 0.66 * depth)
    blend(image, (240, 236, 222), 0.8 * lane * dash)


def _paint_house(view: View, left: int, right: int, rng: np.random.Generator) -> None:
    image, size, horizon = view.image, view.size, view.horizon
    top = max(0, horizon - int(size * rng.uniform(0.12, 0.3)))
    wall = mix(hsv(rng.choice([0.03, 0.08, 0.12, 0.55, 0.62]), 0.22, 0.86), view.haze, 0.35)
    _rectangle(image, left, top, right, horizon, wall)
    view.stuff[top:horizon, max(0, left) : max(0, right)] = ADE_STUFF['building']
    _rectangle(image, left, top, right, top + max(1, size // 80), mix(wall, (110, 84, 80), 0.5))
    _rectangle(image, right - max(1, size // 160), top, right, horizon, mix(wall, (0, 0, 0), 0.2))
    pitch, pane = max(4, round(size * 0.045)), max(2, round(size * 0.022))
    glass = mix(wall, (96, 124, 156), 0.55)
    for row in range(top + pitch // 2, horizon - pane, pitch):
        for column in range(left + pitch // 2, right - pane, pitch):
            color = (255, 232, 170) if rng.random() < 0.12 else glass
            _rectangle(image, column, row, column + pane, row + round(1.3 * pane), color)


def _rectangle(
    image: np.ndarray, left: int, top: int, right: int, bottom: int, color: Color
) -> None:
    area = image[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    area[:] = np.reshape(color, (3, 1, 1))


GROUNDS = dict(sea=paint_sea, beach=paint_beach, meadow=paint_meadow, street=paint_street)
