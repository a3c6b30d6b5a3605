"""mmpretrain's color augmentations with the same results in less time.

The functions of the host compute every pixel in 64 bits or in floating point. A channel has only
256 values: these classes compute a table of them and look the image up in it.
"""

from __future__ import annotations

import copy
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.datasets import transforms as host

from ..registry import TRANSFORMS

#: all values of a pixel, in three channels
_VALUES = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
#: OpenCV counts pixels in float32, which is exact up to this number.
_MOST_PIXELS = 2**24


def faster(transform: Any) -> Any:
    """Return the faster version of a built transform of mmpretrain; other transforms unchanged.

    It has the same name and settings, draws the same random numbers and gives the same pixels.
    Transforms inside a transform are replaced in place.
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
    """An augmentation in which a new value depends on the old value only.

    The transform of the host computes the table from one pixel of each value.
    """

    def transform(self, results: dict) -> dict:
        """Apply the host's transform to ``img``."""
        image = results['img']
        if not _fits(image):
            return super().transform(results)
        table = super().transform(dict(img=_VALUES))['img']
        if table is not _VALUES:  # else the probability switched it off
            results['img'] = _look_up(image, table)
        return results


class Solarize(_Pointwise, host.Solarize):
    """mmpretrain's ``Solarize``."""


class SolarizeAdd(_Pointwise, host.SolarizeAdd):
    """mmpretrain's ``SolarizeAdd``."""


class Brightness(_Pointwise, host.Brightness):
    """mmpretrain's ``Brightness``."""


class Contrast(host.Contrast):
    """mmpretrain's ``Contrast``: it blends values with the mean gray of the image."""

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
    """mmpretrain's ``Equalize``: it makes the values of each channel equally frequent."""

    def transform(self, results: dict) -> dict:
        """Equalize ``img`` at random."""
        image = results['img']
        if not _fits(image):
            return super().transform(results)
        if not self.random_disable():
            results['img'] = _by_channel(image, _equalizing)
        return results


class AutoContrast(host.AutoContrast):
    """mmpretrain's ``AutoContrast``: it stretches the values of each channel to 0 to 255."""

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


@TRANSFORMS.register_module()
class AutoAugment(host.AutoAugment):
    """mmpretrain's AutoAugment with working ``hparams``, and with faster augmentations.

    mmpretrain merges ``hparams`` into the policies, but builds the unmerged ones: ``pad_val`` is
    always 128. :func:`faster` replaces the slow augmentations.

    Args:
        policies: Name of a collection of policies, or the policies.
        hparams: Settings of the augmentations that have them, such as ``pad_val``.
    """

    def __init__(self, policies: str | list[list[dict]], hparams: dict[str, Any]) -> None:
        super().__init__(policies, hparams)
        super().__init__(self.policies, hparams)
        faster(self)


@TRANSFORMS.register_module()
class RandAugment(host.RandAugment):
    """mmpretrain's RandAugment with the same pixels in less time, by faster augmentations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        faster(self)


def _fits(image: Any) -> bool:
    """Return whether it is an image of three channels of 8 bits."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and 0 < image.shape[0] * image.shape[1] < _MOST_PIXELS
    )


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Look all channels up in one table, which is faster in OpenCV than three equal tables."""
    return cv2.LUT(image, np.ascontiguousarray(table[0, :, 0]))


def _by_channel(image: np.ndarray, table_of: Any) -> np.ndarray:
    """Look each channel up in the table that a function computes from its histogram."""
    tables = [
        table_of(cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64))
        for channel in range(3)
    ]
    return cv2.LUT(image, np.stack(tables, axis=-1)[None].astype(np.uint8))


def _equalizing(counts: np.ndarray) -> np.ndarray:
    """Return the rank of each value; the brightest pixels do not count, as in Pillow."""
    last = counts[np.flatnonzero(counts)[-1]]
    step = (counts.sum() - last) // 255
    if step == 0:
        return np.arange(256)
    below = np.cumsum(counts) - counts
    return np.minimum((below + step // 2) // step, 255)


def _stretching(counts: np.ndarray) -> np.ndarray:
    """Map the least and greatest value of the channel to 0 and 255, rounded as the host does."""
    low, high = np.flatnonzero(counts)[[0, -1]]
    if low == high:
        return np.arange(256)
    scale = 255.0 / (high - low)
    return np.clip(np.arange(256) * scale + -low * scale, 0, 255)
