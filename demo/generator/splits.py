"""Streams of images: which image a dataset, a split and a number stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .compose import DrawnImage, compose

# Part of every image's seed: images of two splits never share a random stream. The numbers
# also separate the ids of COCO's images, a million each.
SPLITS = {'train': 0, 'val': 1, 'unseen': 2}


def drawn_images(
    split: str,
    num: int,
    size: int,
    seed: int,
    classes: Sequence[str],
    count: tuple[int, int] = (1, 4),
    side: tuple[float, float] = (0.22, 0.5),
) -> Iterator[DrawnImage]:
    """`num` images of a split (key of `SPLITS`).

    Each depends on seed, split and its own number alone, not on how many there are or who drew
    the ones before. Classes take turns as the first object, so that each of them occurs as soon
    as there are as many images as classes.
    """
    for index in range(num):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        yield compose(rng, size, classes[index % len(classes)], classes, count, side)


def save_jpeg(image: np.ndarray, path: Path) -> None:
    """Writes uint8 RGB (H, W, 3) as JPEG of quality 92 with full colour resolution."""
    Image.fromarray(image).save(path, 'JPEG', quality=92, subsampling=0)
