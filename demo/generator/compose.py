"""Place drawn objects in a painted scene, with the mask of the visible part of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from .canvas import Sprite
from .drawings import THINGS, draw
from .scenes import PLACES, blend, disc, paint_scene

# A part of every image's seed, so that the splits share no random stream. COCO's image ids use it too.
SPLITS = {'train': 0, 'val': 1, 'unseen': 2}
# Two boxes may share this much of their union, and of the smaller box: every object stays visible.
MAX_IOU = 0.12
_MAX_COVER = 0.2
_TRIES = 40
# Opacity from which on a pixel belongs to the object.
_OPAQUE = 128


class Instance(NamedTuple):
    """An object of an image: its class and its visible pixels, bool (size, size)."""

    name: str
    mask: np.ndarray

    @property
    def box(self) -> list[int]:
        """Left, top, width and height of the bounding box of the mask, in pixels."""
        return list(cv2.boundingRect(self.mask.astype(np.uint8)))

    def polygons(self) -> list[np.ndarray]:
        """Return the corners (N, 2) of the outer borders; COCO's polygons have no holes.

        The corners are between the pixels, so a polygon covers exactly the pixels of its part. Parts
        that touch only at a corner are separate polygons.
        """
        count, parts = cv2.connectedComponents(self.mask.astype(np.uint8), connectivity=4)
        # OpenCV's corners are pixels. With four pixels for each, one lies at each corner.
        large = np.kron(parts, np.ones((2, 2), parts.dtype))
        rings = []
        for part in range(1, count):
            found = cv2.findContours(
                np.uint8(large == part), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            corners = (np.roll(found[0][0][::-1, 0], 1, axis=0) + 1) // 2
            corners = corners[np.diff(corners, axis=0, append=corners[:1]).any(axis=1)]
            step = np.diff(corners, axis=0, append=corners[:1])
            rings.append(corners[(step != np.roll(step, 1, axis=0)).any(axis=1)])
        return rings


class DrawnImage(NamedTuple):
    """A complete image."""

    image: np.ndarray  # RGB, uint8 (size, size, 3)
    names: list[str]  # classes of the objects, from back to front
    owner: np.ndarray  # number of the object of each pixel from 1; 0 is background; uint8
    stuff: np.ndarray  # ADE20K's index of the background, uint8 (size, size)

    @property
    def instances(self) -> list[Instance]:
        """The objects, from back to front."""
        return [Instance(name, self.owner == number) for number, name in enumerate(self.names, 1)]

    def painted(self, dataset: str, background: np.ndarray) -> np.ndarray:
        """Return a mask with the indices of ``voc`` or ``ade``, over a background."""
        table = np.uint8([0, *(getattr(THINGS[name], dataset) for name in self.names)])
        return np.where(self.owner == 0, background, table[self.owner])


@dataclass
class _Placed:
    name: str
    place: str
    sprite: Sprite
    left: int = 0
    top: int = 0

    @property
    def corners(self) -> tuple[int, int, int, int]:
        height, width = self.sprite.alpha.shape
        return self.left, self.top, self.left + width, self.top + height


def draw_images(
    split: str, num: int, size: int, seed: int, classes: Sequence[str], **options: Any
) -> Iterator[DrawnImage]:
    """Yield ``num`` images of a split (a key of ``SPLITS``); ``options`` are those of ``compose``.

    An image depends on seed, split and its own number only. The classes take turns as first object.
    """
    for index in range(num):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        yield compose(rng, size, classes[index % len(classes)], classes, **options)


def compose(
    rng: np.random.Generator,
    size: int,
    primary: str,
    classes: Sequence[str],
    count: tuple[int, int] = (1, 4),
    side: tuple[float, float] = (0.22, 0.5),
) -> DrawnImage:
    """Draw an image of ``size`` pixels square that has an object of the class ``primary``.

    ``count`` is the range of the number of objects; there are fewer if there is no room. ``side`` is
    that of an object's longer side, relative to the image: at most 0.8, because rotation and outline
    make an object up to a quarter longer.
    """
    kind = str(rng.choice(_scenes_for(primary)))
    scene = paint_scene(kind, size, rng)
    placed: list[_Placed] = []
    for index in range(int(rng.integers(count[0], count[1] + 1))):
        name = _next_class(rng, kind, classes) if index else primary
        places = sorted(THINGS[name].places & {'sky', PLACES[kind]})
        longer = size * rng.uniform(*side)
        place = places[int(rng.integers(len(places)))]
        _place(rng, _Placed(name, place, draw(name, longer, rng)), size, scene.horizon, placed)
    # Objects in the sky are behind; on the ground, the lower ones are nearer.
    placed.sort(key=lambda item: (item.place != 'sky', item.corners[3]))
    owner = np.zeros((size, size), np.uint8)
    for number, item in enumerate(placed, start=1):
        _ground_contact(scene.image, item)
        left, top, right, bottom = item.corners
        # Half of the tint: the object fits the scene and stays bright.
        tint = (1 + np.asarray(scene.light.tint, np.float32)) / 2
        paint = item.sprite.rgb.transpose(2, 0, 1) * tint[:, None, None]
        blend(scene.image[:, top:bottom, left:right], paint, item.sprite.alpha / np.float32(255))
        owner[top:bottom, left:right][item.sprite.alpha >= _OPAQUE] = number
    image = scene.image.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    names = [item.name for item in placed]
    return DrawnImage(np.ascontiguousarray(image), names, owner, scene.stuff)


def _scenes_for(name: str) -> list[str]:
    return [kind for kind, place in PLACES.items() if THINGS[name].places & {'sky', place}]


def _next_class(rng: np.random.Generator, kind: str, classes: Sequence[str]) -> str:
    """Draw a class that fits the scene, more often if it fits few scenes, for equal counts."""
    names = [name for name in classes if kind in _scenes_for(name)]
    weights = np.array([1 / len(_scenes_for(name)) for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _place(
    rng: np.random.Generator, item: _Placed, size: int, horizon: int, placed: list[_Placed]
) -> None:
    """Place an object beside the others, and add it to them if there is room."""
    height, width = item.sprite.alpha.shape
    depth = size - horizon
    if item.place == 'sky':
        lowest, highest = 0.02 * size, max(0.03 * size, horizon + 0.1 * depth - height)
    else:
        near = {'ground': 0.34, 'road': 0.4, 'water': 0.2}[item.place]
        lowest, highest = max(0, horizon + near * depth - height), size - 0.02 * size - height
    for _ in range(_TRIES):
        item.left = int(rng.uniform(0, max(1, size - width)))
        item.top = int(max(0, rng.uniform(lowest, max(lowest + 1, highest))))
        if not any(_crowds(item.corners, other.corners) for other in placed):
            placed.append(item)
            return


def _crowds(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return False
    shared, areas = width * height, [(c[2] - c[0]) * (c[3] - c[1]) for c in (first, second)]
    return shared > MAX_IOU * (sum(areas) - shared) or shared > _MAX_COVER * min(areas)


def _ground_contact(image: np.ndarray, item: _Placed) -> None:
    """Paint a shadow under an object on the ground, and a reflection under one on the water."""
    left, top, right, bottom = item.corners
    size, width, height = image.shape[1], right - left, bottom - top
    if item.place == 'water':
        depth = min(height // 3, size - bottom)
        if depth <= 0:
            return
        rows = height - 1 - 2 * np.arange(depth)
        share = item.sprite.alpha[rows] / np.float32(255) * np.linspace(0.5, 0.05, depth)[:, None]
        mirrored = item.sprite.rgb[rows].transpose(2, 0, 1)
        blend(image[:, bottom : bottom + depth, left:right], mirrored, share.astype(np.float32))
    elif item.place != 'sky':
        flat = 6
        start, stop = max(0, bottom - int(0.1 * width)), min(size, bottom + int(0.1 * width) + 1)
        middle = (bottom - 0.02 * width - start) * flat
        away = disc((flat * (stop - start), width), width / 2, middle, 0.52 * width)
        blend(image[:, start:stop, left:right], (20, 22, 34), 0.5 * np.clip(1 - away, 0, 1)[::flat])
