"""mmpretrain's random crop and color augmentations with the same results in less time.

The color functions of the host compute every pixel in 64 bits or in floating point. A channel has
only 256 values: these classes compute a table of them and look the image up in it.
"""

from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.datasets import transforms as host

from ..registry import TRANSFORMS

#: all values of a pixel, in three channels
_VALUES = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)


def faster(transform: Any) -> Any:
    """Make a built transform of mmpretrain faster in place, also those inside it; return it.

    It keeps its name and settings, draws the same random numbers and gives the same pixels.
    """
    held = getattr(transform, 'transforms', None)
    for part in held if isinstance(held, list) else ():
        faster(part)
    if type(transform) in _FASTER:
        transform.__class__ = _FASTER[type(transform)]
    return transform


class _ByTable(BaseTransform):
    """An augmentation that maps each value of a channel to another one by a table."""

    def transform(self, results: dict) -> dict:
        image = results['img']
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            return super().transform(results)
        table = self._table(image)
        if table is not None:
            results['img'] = cv2.LUT(image, np.ascontiguousarray(table.astype(np.uint8)))
        return results

    def _table(self, image: np.ndarray) -> np.ndarray | None:  # noqa: ARG002
        """Return 256 values for all channels, or (1, 256, 3); None if the image stays.

        By default, a new value depends on the old value only: the host changes one pixel of each.
        """
        table = super().transform(dict(img=_VALUES))['img']
        # One table for all channels is faster in OpenCV than three equal tables.
        return None if table is _VALUES else table[0, :, 0]  # the probability switched it off


class _ByHistogram(_ByTable):
    """An augmentation in which the table of each channel depends on its histogram."""

    def _table(self, image: np.ndarray) -> np.ndarray | None:
        if self.random_disable():
            return None
        counts = [cv2.calcHist([image], [c], None, [256], [0, 256]).ravel() for c in range(3)]
        return np.stack([self._channel(c.astype(np.int64)) for c in counts], axis=-1)[None]


class Solarize(_ByTable, host.Solarize):
    """mmpretrain's ``Solarize``."""


class SolarizeAdd(_ByTable, host.SolarizeAdd):
    """mmpretrain's ``SolarizeAdd``."""


class Brightness(_ByTable, host.Brightness):
    """mmpretrain's ``Brightness``."""


class Contrast(_ByTable, host.Contrast):
    """mmpretrain's ``Contrast``: it blends values with the mean gray of the image."""

    def _table(self, image: np.ndarray) -> np.ndarray | None:
        if self.random_disable():
            return None
        magnitude = self.random_magnitude() if self.magnitude is None else self.magnitude
        factor = 1 + self.random_negative(magnitude)
        gray = mmcv.bgr2gray(image)
        mean = np.full(_VALUES.shape, round(np.sum(gray) / gray.size), np.float32)
        blended = cv2.addWeighted(_VALUES.astype(np.float32), factor, mean, 1 - factor, 0)
        return np.clip(blended, 0, 255)[0, :, 0]


class Equalize(_ByHistogram, host.Equalize):
    """mmpretrain's ``Equalize``: it makes the values of each channel equally frequent."""

    def _channel(self, counts: np.ndarray) -> np.ndarray:
        """Return the rank of each value; the brightest pixels do not count, as in Pillow."""
        last = counts[np.flatnonzero(counts)[-1]]
        step = (counts.sum() - last) // 255
        if step == 0:
            return np.arange(256)
        below = np.cumsum(counts) - counts
        return np.minimum((below + step // 2) // step, 255)


class AutoContrast(_ByHistogram, host.AutoContrast):
    """mmpretrain's ``AutoContrast``: it stretches the values of each channel to 0 to 255."""

    def _channel(self, counts: np.ndarray) -> np.ndarray:
        """Map the least and greatest value to 0 and 255, rounded as the host does."""
        low, high = np.flatnonzero(counts)[[0, -1]]
        if low == high:
            return np.arange(256)
        scale = 255.0 / (high - low)
        return np.clip(np.arange(256) * scale + -low * scale, 0, 255)


_FASTER: dict[type, type] = {
    getattr(host, kind.__name__): kind
    for kind in (AutoContrast, Brightness, Contrast, Equalize, Solarize, SolarizeAdd)
}


@TRANSFORMS.register_module()
class AutoAugment(host.AutoAugment):
    """mmpretrain's AutoAugment with working ``hparams``, and with faster augmentations.

    mmpretrain merges ``hparams`` into the policies, but builds the unmerged ones: ``pad_val`` is
    always 128. :func:`faster` replaces the slow augmentations.
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


@TRANSFORMS.register_module()
class RandomResizedCrop(host.RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop``: the same crops and pixels in less time.

    The host passes a crop to Pillow as a view of the image. NumPy 2.2 copies a view element
    by element, which takes as long as the resize. This class copies it by rows first (docs/data.md
    has the ratios). With Pillow's ``box`` argument the filter reads pixels outside the crop.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by a random crop that is resized to ``scale``; set ``img_shape``."""
        top, left, height, width = self.rand_crop_params(results['img'])
        crop = np.ascontiguousarray(results['img'][top : top + height, left : left + width])
        results['img'] = mmcv.imresize(
            crop, tuple(self.scale[::-1]), interpolation=self.interpolation, backend=self.backend
        )
        results['img_shape'] = results['img'].shape
        return results
