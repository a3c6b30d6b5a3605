"""Load segmentation masks, and name a mask that is wrong."""

from typing import Any

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations

from ..errors import InputError
from ..registry import TRANSFORMS
from .loading import DECODING_ERRORS, known_reaction, report_file


@TRANSFORMS.register_module()
class LoadSegAnnotations(LoadAnnotations):
    """Load the mask of an image. Name a mask that cannot be read or does not fit.

    mmseg's loader does not check masks: a class number out of range ends in an error of the loss (on
    a GPU one that makes it unusable), a color mask or another size in an error of a later transform.
    None of these errors names the file.

    Args:
        num_classes: Number of classes of the model. A mask with a greater number, after the
            dataset's renumbering, ends the run. None checks no numbers.
        ignore_index: The number for no class.
        on_error: The reaction to a file that cannot be read. ``skip``: the dataset returns another
            sample (training). ``ignore``: no pixel counts (evaluation). ``raise``: the run ends.
        **kwargs: Arguments of mmseg's ``LoadAnnotations``.
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
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.on_error = known_reaction(on_error, ('skip', 'ignore', 'raise'))

    def transform(self, results: dict) -> dict | None:
        """Add ``gt_seg_map`` to the results; None if the sample is skipped."""
        path, shape = results['seg_map_path'], results.get('ori_shape')
        try:
            super().transform(results)
        except DECODING_ERRORS as error:
            damaged = 'it is not an image, or is truncated or damaged'
            fault = f"mask '{path}' cannot be read: {getattr(error, 'strerror', None) or damaged}"
            if self.on_error == 'raise':
                raise InputError(fault) from error
            skipped = self.on_error == 'skip'
            then = 'its image is skipped' if skipped else 'none of its pixels counts'
            report_file(str(path), f'{fault}; {then}')
            if skipped:
                return None
            size = results['img'].shape[:2] if shape is None else shape
            results['gt_seg_map'] = np.full(size, self.ignore_index, np.uint8)
            results['seg_fields'].append('gt_seg_map')
        else:
            self._check(results['gt_seg_map'], path, shape)
        return results

    def _check(self, mask: np.ndarray, path: str, shape: tuple[int, int] | None) -> None:
        if mask.ndim != 2:
            raise InputError(
                f"mask '{path}' has {mask.shape[-1]} channels; expected one channel of class "
                'numbers (a gray or palette PNG)'
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
            first = ', from 1, with 0 for no class' if self.reduce_zero_label else ''
            raise InputError(
                f"mask '{path}' has the class number {greatest + bool(self.reduce_zero_label)}, "
                f'but the model has {self.num_classes} classes{first}: renumber the masks, or set '
                f'num_classes of the heads and metainfo.classes ({self.ignore_index} means no class)'
            )
