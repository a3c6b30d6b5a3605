"""Backgrounds: sea, beach, meadow and street, by day, in the morning, at dusk and at night.

They are paler than the objects, so that a network learns the objects in minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import Color, mix
from .surfaces import GROUNDS, View
from .texture import blend, disc, gradient, grain, noise, ramp
from .vocabulary import ADE_STUFF


@dataclass(frozen=True)
class Light:
    """Time of day.

    Attributes:
        sky: Colors from the zenith to the horizon.
        cloud: Color of clouds.
        lamp: Color of sun or moon.
        tint: Factors for red, green and blue of the ground and the objects.
        stars: Whether the sky has stars.
    """

    sky: tuple[Color, ...]
    cloud: Color
    lamp: Color
    tint: tuple[float, float, float]
    stars: bool = False


LIGHTS = {
    'day': Light(((108, 178, 232), (164, 212, 242), (222, 240, 248)), (255, 255, 255),
                 (255, 250, 214), (1.0, 1.0, 1.0)),
    'morning': Light(((150, 190, 226), (214, 214, 232), (252, 226, 206)), (255, 240, 236),
                     (255, 244, 206), (1.0, 0.97, 0.95)),
    'dusk': Light(((92, 88, 150), (214, 128, 146), (252, 192, 128)), (250, 176, 160),
                  (255, 226, 150), (1.0, 0.86, 0.82)),
    'night': Light(((22, 26, 62), (42, 52, 104), (92, 100, 150)), (86, 94, 140),
                   (246, 244, 220), (0.62, 0.66, 0.86), stars=True),
}  # fmt: skip
_LIGHT_SHARES = {'day': 0.5, 'morning': 0.2, 'dusk': 0.2, 'night': 0.1}

# The place for objects below the horizon. Every scene has a sky above it.
PLACES = {'sea': 'water', 'beach': 'ground', 'meadow': 'ground', 'street': 'road'}


@dataclass(frozen=True)
class Scene:
    """A background without objects.

    Attributes:
        kind: Key of ``PLACES``.
        image: float32 (3, size, size), about 0 to 255.
        stuff: ADE20K's index of the surface, uint8 (size, size).
        horizon: Its row in pixels.
        light: Time of day.
    """

    kind: str
    image: np.ndarray
    stuff: np.ndarray
    horizon: int
    light: Light


def paint_scene(kind: str, size: int, rng: np.random.Generator) -> Scene:
    """Paint a background of a kind (a key of ``PLACES``), ``size`` pixels square."""
    light = LIGHTS[str(rng.choice(list(_LIGHT_SHARES), p=list(_LIGHT_SHARES.values())))]
    horizon = round(size * rng.uniform(0.42, 0.58))
    image = np.empty((3, size, size), np.float32)
    stuff = np.full((size, size), ADE_STUFF['sky'], np.uint8)
    lamp = _paint_sky(image, horizon, light, rng)
    haze = mix(light.sky[-1], light.cloud, 0.3)
    GROUNDS[kind](View(image, stuff, horizon, haze, lamp), rng)
    ground = stuff != ADE_STUFF['sky']
    image *= np.where(ground, np.reshape(light.tint, (3, 1, 1)), 1).astype(np.float32)
    image += grain(rng, (size, size), 4)
    return Scene(kind, image, stuff, horizon, light)


def _paint_sky(image: np.ndarray, horizon: int, light: Light, rng: np.random.Generator) -> float:
    """Fill the whole image with sky, and return the column of sun or moon."""
    size = image.shape[1]
    shape = (size, size)
    rows = np.arange(size, dtype=np.float32) / horizon
    image[:] = gradient(light.sky, rows)[..., None]
    if light.stars:
        count = size // 4
        x, y = rng.integers(0, size, count), rng.integers(0, horizon, count)
        image[:, y, x] += rng.uniform(40, 150, count).astype(np.float32)
    lamp_x, lamp_y = size * rng.uniform(0.12, 0.88), horizon * rng.uniform(0.15, 0.8)
    away = disc(shape, lamp_x, lamp_y, 0.05 * size)
    blend(image, light.lamp, 0.5 * np.clip(1 - away / 7, 0, 1) ** 2)
    blend(image, light.lamp, 0.9 * (1 - ramp(away, 0.9, 1.05)))
    puffs = noise(rng, shape, (7, 3.2), 4)
    cover = ramp(puffs + rng.uniform(-0.25, 0.25), 0.1, 0.95)
    # Clouds get thinner towards the horizon, and their lower edge is shaded.
    cover *= np.clip(1.15 - rows, 0, 1)[:, None]
    blend(image, light.cloud, 0.85 * cover)
    base = np.clip(puffs - np.roll(puffs, -max(1, size // 40), axis=0), 0, 1)
    blend(image, mix(light.sky[0], light.cloud, 0.4), 0.5 * cover * base)
    return float(lamp_x)
