"""Backgrounds: sea, beach, meadow and street, by day, in the morning, at dusk and at night.

They are paler than the objects, so that a network learns the objects in minutes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from .canvas import Color, hsv, mix

# ADE20K's indices of the surfaces.
ADE_STUFF = dict(
    building=2, sky=3, tree=5, road=7, grass=10, sidewalk=12, mountain=17, sea=27, sand=47
)


class Light(NamedTuple):
    """Time of day."""

    share: float  # of the images
    sky: tuple[Color, ...]  # from the zenith to the horizon
    cloud: Color
    lamp: Color  # sun or moon
    tint: tuple[float, float, float]  # factors for red, green and blue of ground and objects
    stars: bool = False


# Day, morning, dusk and night.
LIGHTS = (
    Light(0.5, ((108, 178, 232), (164, 212, 242), (222, 240, 248)), (255, 255, 255),
          (255, 250, 214), (1.0, 1.0, 1.0)),
    Light(0.2, ((150, 190, 226), (214, 214, 232), (252, 226, 206)), (255, 240, 236),
          (255, 244, 206), (1.0, 0.97, 0.95)),
    Light(0.2, ((92, 88, 150), (214, 128, 146), (252, 192, 128)), (250, 176, 160),
          (255, 226, 150), (1.0, 0.86, 0.82)),
    Light(0.1, ((22, 26, 62), (42, 52, 104), (92, 100, 150)), (86, 94, 140),
          (246, 244, 220), (0.62, 0.66, 0.86), stars=True),
)  # fmt: skip


class Scene:
    """A background without objects, which the painters change in place."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.rng, self.size = rng, size
        shares = [light.share for light in LIGHTS]
        self.light = LIGHTS[int(rng.choice(len(LIGHTS), p=shares))]
        self.horizon = round(size * rng.uniform(0.42, 0.58))  # its row
        self.depth = size - self.horizon
        self.image = np.empty((3, size, size), np.float32)  # about 0 to 255
        self.stuff = np.full((size, size), ADE_STUFF['sky'], np.uint8)  # ADE20K's indices
        self.columns = np.arange(size, dtype=np.float32)
        # Nearness of each row: 0 down to the horizon, 1 at the lower edge.
        self.near = np.clip((self.columns - self.horizon) / max(1, self.depth), 0, 1)
        self.haze = mix(self.light.sky[-1], self.light.cloud, 0.3)  # color of distant things
        self.lamp = 0.0  # column of sun or moon

    def fill(self, region: np.ndarray, color: np.ndarray | Color, name: str) -> None:
        """Paint and label a region; ``region`` is from 0 to 1."""
        blend(self.image, color, region)
        self.stuff[region > 0.5] = ADE_STUFF[name]

    def below(self, row: np.ndarray | float) -> np.ndarray:
        """Return the region (0 to 1) below a row, or below one row for each column."""
        line = np.broadcast_to(np.float32(row), self.size)
        return np.clip(self.columns[:, None] + 1 - line, 0, 1)

    def rectangle(self, left: int, top: int, right: int, bottom: int, color: Color) -> None:
        """Fill the part of a rectangle that is in the image."""
        area = self.image[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        area[:] = np.reshape(color, (3, 1, 1))

    def receding(self, cells: tuple[float, float], octaves: int) -> np.ndarray:
        """Return noise in perspective: its rows are closer together at the horizon."""
        rows = (self.size - 1) * (1.25 - 0.25 / (0.2 + 0.8 * self.near))
        texture = noise(self.rng, self.stuff.shape, cells, octaves)
        return texture[np.clip(rows, 0, self.size - 1).astype(int)]

    def line(self, cells: float, octaves: int) -> np.ndarray:
        """Return a smooth line by column, about -1 to 1."""
        return noise(self.rng, (2, self.size), (2, cells), octaves)[0]

    def ridge(self, cells: float, row: float, height: float) -> np.ndarray:
        """Return the row of a hilly line by column, up to ``height`` pixels above ``row``."""
        return row - height * (0.5 + 0.5 * self.line(cells, 3))

    def shades(self, *colors: Color) -> np.ndarray:
        """Return a gradient of colors from the horizon to the lower edge."""
        return gradient(colors, self.near)[..., None]


def paint_scene(kind: str, size: int, rng: np.random.Generator) -> Scene:
    """Paint a background of a kind (a key of ``PLACES``), ``size`` pixels square."""
    scene = Scene(size, rng)
    _paint_sky(scene)
    _PAINTERS[kind](scene)
    ground = scene.stuff != ADE_STUFF['sky']
    tint = np.where(ground, np.reshape(scene.light.tint, (3, 1, 1)), 1)
    scene.image *= tint.astype(np.float32)
    scene.image += grain(rng, (size, size), 4)
    return scene


def _paint_sky(scene: Scene) -> None:
    """Fill the whole image with sky, with sun or moon and clouds."""
    image, size, rng, light = scene.image, scene.size, scene.rng, scene.light
    rows = scene.columns / scene.horizon
    image[:] = gradient(light.sky, rows)[..., None]
    if light.stars:
        count = size // 4
        x, y = rng.integers(0, size, count), rng.integers(0, scene.horizon, count)
        image[:, y, x] += rng.uniform(40, 150, count).astype(np.float32)
    scene.lamp = size * rng.uniform(0.12, 0.88)
    away = disc((size, size), scene.lamp, scene.horizon * rng.uniform(0.15, 0.8), 0.05 * size)
    blend(image, light.lamp, 0.5 * np.clip(1 - away / 7, 0, 1) ** 2)
    blend(image, light.lamp, 0.9 * (1 - ramp(away, 0.9, 1.05)))
    puffs = noise(rng, (size, size), (7, 3.2), 4)
    cover = ramp(puffs + rng.uniform(-0.25, 0.25), 0.1, 0.95)
    # Clouds get thinner towards the horizon, and their lower edge is shaded.
    cover *= np.clip(1.15 - rows, 0, 1)[:, None]
    blend(image, light.cloud, 0.85 * cover)
    base = np.clip(puffs - np.roll(puffs, -max(1, size // 40), axis=0), 0, 1)
    blend(image, mix(light.sky[0], light.cloud, 0.4), 0.5 * cover * base)


def _paint_sea(scene: Scene) -> None:
    """Paint water with waves and the reflection of sun or moon, and sometimes a distant coast."""
    rng, size, horizon, haze = scene.rng, scene.size, scene.horizon, scene.haze
    if rng.random() < 0.5:
        ridge = scene.ridge(rng.uniform(2, 4), horizon + 0.02 * size, 0.14 * size)
        scene.fill(scene.below(ridge), mix(haze, (70, 100, 120), 0.45), 'mountain')
    near = scene.near[:, None]
    hue = rng.uniform(0.5, 0.57)
    far = mix(haze, hsv(hue, 0.35, 0.75), 0.6)
    water = scene.shades(far, hsv(hue, 0.48, 0.66), hsv(hue + 0.02, 0.58, 0.56))
    scene.fill(scene.below(horizon), water, 'sea')
    waves = scene.receding((60, 9), 2) * np.sqrt(near)
    scene.image += 14 * waves
    foam = ramp(waves, 0.55, 0.95)
    path = np.exp(-(((scene.columns[None] - scene.lamp) / (size * (0.05 + 0.12 * near))) ** 2))
    sparkle = path * ramp(waves, 0.0, 0.5) * (near > 0)
    blend(scene.image, (255, 255, 255), np.clip(0.3 * foam + 0.5 * sparkle, 0, 1))


def _paint_beach(scene: Scene) -> None:
    """Paint sand in front of a strip of sea with surf."""
    _paint_sea(scene)
    image, depth = scene.image, scene.depth
    shore = scene.horizon + depth * (0.2 + 0.05 * scene.line(3, 2))
    sand = scene.below(shore)
    surf = scene.below(shore - 0.045 * depth) - scene.below(shore + 0.01 * depth)
    pale = hsv(scene.rng.uniform(0.1, 0.125), 0.3, 0.94)
    tone = scene.shades(mix(pale, scene.haze, 0.3), pale, mix(pale, (176, 132, 84), 0.3))
    scene.fill(sand, tone, 'sand')
    image += 7 * sand * scene.receding((16, 5), 3)
    image += sand * grain(scene.rng, sand.shape, 9)
    wet = np.clip(sand - scene.below(shore + 0.09 * depth), 0, 1)
    blend(image, mix(pale, (120, 96, 74), 0.5), 0.4 * wet)
    blend(image, (255, 255, 255), 0.85 * np.clip(surf, 0, 1))


def _paint_meadow(scene: Scene) -> None:
    """Paint hills, a row of distant trees and grass with flowers."""
    rng, size, horizon, haze = scene.rng, scene.size, scene.horizon, scene.haze
    hue = rng.uniform(0.24, 0.31)
    ridge = scene.ridge(rng.uniform(2, 4), horizon + 0.02 * size, 0.2 * size)
    scene.fill(scene.below(ridge), mix(haze, (96, 128, 150), 0.5), 'mountain')
    trees = scene.ridge(size / 14, horizon + 0.01 * size, 0.07 * size)
    scene.fill(scene.below(trees), mix(haze, hsv(hue + 0.05, 0.42, 0.5), 0.75), 'tree')
    grass = scene.below(horizon + 0.02 * size * scene.line(3, 1))
    far = mix(haze, hsv(hue, 0.4, 0.78), 0.7)
    tone = scene.shades(far, hsv(hue, 0.42, 0.72), hsv(hue + 0.02, 0.48, 0.58))
    scene.fill(grass, tone, 'grass')
    patches = scene.receding((8, 5), 2)
    blades = noise(rng, grass.shape, (size / 9, size / 2.5), 1) * scene.near[:, None]
    scene.image += grass * (7 * patches + 11 * blades)
    petals = [(255, 255, 250), (255, 240, 150), (246, 200, 214)]
    for _ in range(int(rng.integers(10, 40))):
        row = int(horizon + (size - 1 - horizon) * rng.uniform(0.1, 1))
        column, reach = int(rng.integers(0, size)), 1 + (row - horizon) * 3 // size
        petal = petals[int(rng.integers(3))]
        scene.rectangle(column, row, column + reach, row + reach, petal)


def _paint_street(scene: Scene) -> None:
    """Paint pale houses behind a pavement and a road with lane marks."""
    rng, image, size, horizon = scene.rng, scene.image, scene.size, scene.horizon
    left = -int(rng.integers(0, size // 8 + 1))
    while left < size:
        width = int(size * rng.uniform(0.12, 0.24)) + 2
        _paint_house(scene, left, left + width)
        left += width
    depth = scene.depth
    kerb = horizon + 0.24 * depth
    pavement = scene.below(horizon)
    scene.fill(pavement, (202, 196, 188), 'sidewalk')
    tiles = scene.columns[None] - size / 2
    joints = np.abs(tiles / (0.05 + 0.1 * size * (0.4 + scene.near[:, None])) % 1 - 0.5) > 0.47
    image -= 12 * pavement * joints
    scene.fill(scene.below(kerb), mix((122, 124, 134), scene.haze, 0.12), 'road')
    blend(image, (228, 224, 216), scene.below(kerb - 0.03 * depth) - scene.below(kerb))
    image += pavement * grain(rng, pavement.shape, 7)
    image += 6 * pavement * scene.receding((10, 4), 3)
    dash = (tiles / (0.22 * size) + rng.uniform(0, 1)) % 1 < 0.55
    lane = scene.below(horizon + 0.62 * depth) - scene.below(horizon + 0.66 * depth)
    blend(image, (240, 236, 222), 0.8 * lane * dash)


def _paint_house(scene: Scene, left: int, right: int) -> None:
    rng, size, horizon = scene.rng, scene.size, scene.horizon
    top = max(0, horizon - int(size * rng.uniform(0.12, 0.3)))
    wall = mix(hsv(rng.choice([0.03, 0.08, 0.12, 0.55, 0.62]), 0.22, 0.86), scene.haze, 0.35)
    scene.rectangle(left, top, right, horizon, wall)
    scene.stuff[top:horizon, max(0, left) : max(0, right)] = ADE_STUFF['building']
    scene.rectangle(left, top, right, top + max(1, size // 80), mix(wall, (110, 84, 80), 0.5))
    scene.rectangle(right - max(1, size // 160), top, right, horizon, mix(wall, (0, 0, 0), 0.2))
    pitch, pane = max(4, round(size * 0.045)), max(2, round(size * 0.022))
    glass = mix(wall, (96, 124, 156), 0.55)
    for row in range(top + pitch // 2, horizon - pane, pitch):
        for column in range(left + pitch // 2, right - pane, pitch):
            color = (255, 232, 170) if rng.random() < 0.12 else glass
            scene.rectangle(column, row, column + pane, row + round(1.3 * pane), color)


_PAINTERS = dict(sea=_paint_sea, beach=_paint_beach, meadow=_paint_meadow, street=_paint_street)
# The place for objects below the horizon. Every scene has a sky above it.
PLACES = {'sea': 'water', 'beach': 'ground', 'meadow': 'ground', 'street': 'road'}


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float], octaves: int
) -> np.ndarray:
    """Return smooth noise, about -1 to 1, with ``cells`` grains along each side.

    Every octave has twice the grains and half the height of the previous one.
    """
    total = np.zeros((2, 2), np.float32)
    for octave in range(octaves):
        wanted = np.round(np.multiply(cells, 2**octave)).astype(int)
        grid = np.clip(wanted, 2, shape)
        # Resizing step by step is faster than resizing each octave to the full size.
        total = _grow(total, grid) + 0.5**octave * rng.uniform(-1, 1, grid).astype(np.float32)
    return _grow(total, shape)


def _grow(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BICUBIC))


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
    channels = [np.interp(position, stops, channel) for channel in zip(*colors, strict=True)]
    return np.array(channels, np.float32)


def blend(image: np.ndarray, color: Color | np.ndarray, share: np.ndarray) -> None:
    """Mix a color, or an array of the image's shape, into an image (3, rows, columns) in place.

    ``share`` (rows, columns) is from 0 to 1.
    """
    paint = np.asarray(color, np.float32)
    image += ((paint.reshape(3, 1, 1) if paint.ndim == 1 else paint) - image) * share


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Return the distance from (x, y) divided by the radius, float32 (rows, columns)."""
    down = (np.arange(shape[0], dtype=np.float32) + 0.5 - y) / radius
    along = (np.arange(shape[1], dtype=np.float32) + 0.5 - x) / radius
    return np.sqrt(down[:, None] ** 2 + along[None] ** 2)
