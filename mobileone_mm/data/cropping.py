"""mmpretrain's random crop with the same result in less time."""

from __future__ import annotations

import mmcv
import numpy as np
from mmpretrain.datasets.transforms import RandomResizedCrop as HostRandomResizedCrop

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizedCrop(HostRandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop``: the same crops and pixels in less time.

    The host passes a crop to Pillow as a view of the image. NumPy then copies it element by
    element, which takes as long as the resize. This class copies it by rows first (docs/data.md has
    the ratios). With Pillow's ``box`` argument the filter reads pixels outside the crop, so the
    edges differ.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``img`` by a random crop that is resized to ``scale``; set ``img_shape``."""
        top, left, height, width = self.rand_crop_params(results['img'])
        crop = np.ascontiguousarray(results['img'][top : top + height, left : left + width])
        results['img'] = mmcv.imresize(
            crop,
            tuple(self.scale[::-1]),
            interpolation=self.interpolation,
            backend=self.backend,
        )
        results['img_shape'] = results['img'].shape
        return results
