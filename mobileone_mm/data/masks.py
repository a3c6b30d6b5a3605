"""Loading masks of segmentation so that a wrong one is named."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from ..errors import InputError
from ..registry import TRANSFORMS
from .loading import report_file

ON_ERROR = ('skip', 'ignore', 'raise')


class _UnreadableMaskError(InputError):
    """A file that is no mask at all, as against one whose content does not fit."""


@TRANSFORMS.register_module()
class LoadSegAnnotations(LoadAnnotations):
    """Load the mask of an image; name one that cannot be read or does not fit.

    With mmseg's loader, a class number beyond the model's ends in an index error of the loss (on a
    GPU in an assertion that ends all use of it), a colour mask or one of another size in a shape
    error some transforms later, and none of them names the file.

    Args:
        num_classes: Classes of the model: a mask with another number, after the dataset's
            renumbering, ends the run. None checks no numbers.
        ignore_index: The number that stands for no class.
        on_error: What happens to a file that cannot be read. ``skip``: the dataset takes another
            sample instead (training). ``ignore``: no pixel of it counts (evaluation). ``raise``:
            the run ends.
        **kwargs: Arguments of mmseg's ``LoadAnnotations``.

    Raises:
        ValueError: ``on_error`` is none of these.
    """

    def __init__(
        self,
        *args: Any,
        num_classes: int | None = None,
        ignore_index: int = 255,
        on_error: str = 'skip',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error: got '{on_error}'; {', '.join(ON_ERROR)} are allowed")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.on_error = on_error

    def transform(self, results: dict) -> dict | None:
        """Add ``gt_seg_map`` to the results; None if the sample is to be left out.

        Raises:
            InputError: The mask does not fit the image or the classes; or it cannot be read and
                ``on_error`` is ``raise``.
        """
        try:
            return super().transform(results)
        except _UnreadableMaskError as error:
            if self.on_error == 'raise':
                raise
            skipped = self.on_error == 'skip'
            report_file(
                str(results['seg_map_path']),
                f'{error}; {"its image is left out" if skipped else "no pixel of it counts"}',
            )
            if skipped:
                return None
        shape = results.get('ori_shape', results['img'].shape[:2])
        results['gt_seg_map'] = np.full(shape, self.ignore_index, np.uint8)
        results['seg_fields'].append('gt_seg_map')
        return results

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        try:
            super()._load_seg_map(results)
        except (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError) as error:
            reason = getattr(error, 'strerror', None) or 'it is no image, cut off or damaged'
            raise _UnreadableMaskError(f"mask '{path}' cannot be read: {reason}") from error
        self._check(results['gt_seg_map'], str(path), results.get('ori_shape'))

    def _check(self, mask: np.ndarray, path: str, shape: tuple[int, int] | None) -> None:
        if mask.ndim != 2:
            raise InputError(
                f"mask '{path}' has {mask.shape[-1]} channels; one is needed, of class numbers "
                '(a grey or palette PNG)'
            )
        if shape is not None and mask.shape != tuple(shape):
            raise InputError(
                f"mask '{path}' has {mask.shape[1]} x {mask.shape[0]} pixels, its image "
                f'{shape[1]} x {shape[0]}'
            )
        if self.num_classes is None:
            return
        greatest = int(mask.max(initial=0, where=mask != self.ignore_index))
        if greatest >= self.num_classes:
            first = ', counted from 1 with 0 for no class' if self.reduce_zero_label else ''
            raise InputError(
                f"mask '{path}' has the class number {greatest + bool(self.reduce_zero_label)}, the "
                f'model {self.num_classes} classes{first}: renumber the masks, or set num_classes of '
                f'the heads and metainfo.classes ({self.ignore_index} stands for no class)'
            )
