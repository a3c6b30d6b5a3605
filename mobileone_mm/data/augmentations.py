"""mmpretrain's augmentations of colour, with the same result in less time.

The hosts' functions treat every pixel by itself, in 64 bits or in floating point, though an image has
256 values a channel: here the values are worked out once, and the image is looked up in a table.
"""

from __future__ import annotations

import copy
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.datasets import transforms as host

#: all values of an image, in as many channels
_VALUES = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
#: OpenCV counts pixels in float32, which is exact up to here.
_MOST_PIXELS = 2**24


def faster(transform: Any) -> Any:
    """The faster twin of one of mmpretrain's augmentations; any other transform as it is.

    The twin has the name and the settings of the original, draws the same random numbers and has the
    same result, bit by bit. Transforms inside a transform are exchanged, too, in place.

    Args:
        transform: A transform, built.
    """
    held = getattr(transform, 'transforms', None)
    if isinstance(held, list):
        held[:] = [faster(part) for part in held]
    kind = _FASTER.get(type(transform))
    if kind is None:
        return transform
    twin = copy.copy(transform)
    twin.__class__ = kind
    return twin


class _Pointwise(BaseTransform):
    """An augmentation whose value of a pixel depends on nothing but the pixel's value.

    The host's own transform runs on one pixel of each value.
    """

    def transform(self, results: dict) -> dict:
        """Apply the host's transform to ``img``."""
        image = results['img']
        if not _fits(image):
            return super().transform(results)
        table = super().transform(dict(img=_VALUES))['img']
        if table is not _VALUES:  # else it was switched off, by its probability
            results['img'] = _look_up(image, table)
        return results


class Solarize(_Pointwise, host.Solarize):
    """mmpretrain's ``Solarize``."""


class SolarizeAdd(_Pointwise, host.SolarizeAdd):
    """mmpretrain's ``SolarizeAdd``."""


class Brightness(_Pointwise, host.Brightness):
    """mmpretrain's ``Brightness``."""


class Contrast(host.Contrast):
    """mmpretrain's ``Contrast``: values are blended with the mean grey of the image."""

    def transform(self, results: dict) -> dict:
        """Change the contrast of ``img`` at random."""
        image = results['img']
        if not _fits(image):
            return super().transform(results)
        if self.random_disable():
            return results
        magnitude = self.random_magnitude() if self.magnitude is None else self.magnitude
        factor = 1 + self.random_negative(magnitude)
        grey = mmcv.bgr2gray(image)
        mean = np.full_like(_VALUES, round(np.sum(grey) / grey.size))
        blended = cv2.addWeighted(
            _VALUES.astype(np.float32), factor, mean.astype(np.float32), 1 - factor, 0
        )
        results['img'] = _look_up(image, np.clip(blended, 0, 255).astype(np.uint8))
        return results


class Equalize(host.Equalize):
    """mmpretrain's ``Equalize``: each channel's values as evenly frequent as they can be."""

    def transform(self, results: dict) -> dict:
        """Equalize ``img`` at random."""
        image = results['img']
        if not _fits(image):
            return super().transform(results)
        if not self.random_disable():
            results['img'] = _by_channel(image, _equalizing)
        return results


class AutoContrast(host.AutoContrast):
    """mmpretrain's ``AutoContrast``: each channel's values are stretched to 0 to 255."""

    def transform(self, results: dict) -> dict:
        """Stretch the contrast of ``img`` at random."""
        image = results['img']
        if not _fits(image):
            return super().transform(results)
        if not self.random_disable():
            results['img'] = _by_channel(image, _stretching)
        return results


_FASTER: dict[type, type] = {
    host.AutoContrast: AutoContrast,
    host.Brightness: Brightness,
    host.Contrast: Contrast,
    host.Equalize: Equalize,
    host.Solarize: Solarize,
    host.SolarizeAdd: SolarizeAdd,
}


def _fits(image: Any) -> bool:
    """Whether it is an image of three channels of 8 bits, as all loaders give it."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and 0 < image.shape[0] * image.shape[1] < _MOST_PIXELS
    )


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look all channels up in one table, which OpenCV does faster than in equal ones."""
    return cv2.LUT(image, np.ascontiguousarray(table[0, :, 0]))


def _by_channel(image: np.ndarray, table_of: Any) -> np.ndarray:
    """Look each channel up in the table that a function makes of its histogram."""
    tables = [
        table_of(cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64))
        for channel in range(3)
    ]
    return cv2.LUT(image, np.stack(tables, axis=-1)[None].astype(np.uint8))


def _equalizing(counts: np.ndarray) -> np.ndarray:
    """Each value's rank in the channel; the brightest pixels do not count, as in Pillow."""
    last = counts[np.flatnonzero(counts)[-1]]
    step = (counts.sum() - last) // 255
    if step == 0:
        return np.arange(256)
    below = np.cumsum(counts) - counts
    return np.minimum((below + step // 2) // step, 255)


def _stretching(counts: np.ndarray) -> np.ndarray:
    """The line through the channel's least and greatest value, in the host's order of rounding."""
    low, high = np.flatnonzero(counts)[[0, -1]]
    if low == high:
        return np.arange(256)
    scale = 255.0 / (high - low)
    return np.clip(np.arange(256) * scale + -low * scale, 0, 255)
