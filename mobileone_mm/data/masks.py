"""Load segmentation masks, and name a mask that is wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations

from ..errors import InputError
from ..registry import TRANSFORMS
from .exif import read_header
from .loading import DECODING_ERRORS, known_reaction, report_file

NUMBERS = 256  # of an 8-bit mask
_NO_CLASS = 255  # mmseg's renumbering gives this number, whatever ignore_index is


@TRANSFORMS.register_module()
class LoadSegAnnotations(LoadAnnotations):
    """Load the mask of an image. Name a mask that cannot be read or does not fit.

    mmseg's loader does not check masks. It takes numbers modulo 256 and cuts off decimals. A class
    number out of range ends in an error of the loss, after which the process cannot use its GPU. A
    color mask or another size ends in an error of a later transform. None of these errors names the
    file.
    A config cannot renumber the masks of a dataset without a class list of its own, such as
    ``BaseSegDataset``.

    Args:
        label_map: Numbers in the file by numbers to use in their place, such as ``{255: 1}`` for
            masks of 0 and 255. It applies first; ``reduce_zero_label`` and the renumbering of the
            dataset follow. A key may be any integer, a value is an integer from 0 to 255.
        num_classes: Number of classes of the masks. A mask with a greater number, after all
            renumbering, ends the run. None checks no numbers.
        ignore_index: The number for no class.
        on_error: The reaction to a file that cannot be read. ``skip``: the dataset returns another
            sample (training). ``ignore``: all its pixels are ignored (evaluation). ``raise``: the run
            ends.
        **kwargs: Arguments of mmseg's ``LoadAnnotations``.
    """

    def __init__(
        self,
        *args: Any,
        label_map: Mapping[int, int] | None = None,
        num_classes: int | None = None,
        ignore_index: int = 255,
        on_error: str = 'skip',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.label_map = _checked(label_map)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.on_error = known_reaction(on_error, ('skip', 'ignore', 'raise'))

    def transform(self, results: dict) -> dict | None:
        """Add ``gt_seg_map`` to the results; None if the sample is skipped."""
        path, shape = results['seg_map_path'], results.get('ori_shape')
        try:
            super().transform(results)
        except InputError:
            raise
        except DECODING_ERRORS as error:
            damaged = 'it is not an image, or is truncated or damaged'
            fault = f"mask '{path}' cannot be read: {getattr(error, 'strerror', None) or damaged}"
            if self.on_error == 'raise':
                raise InputError(fault) from error
            skipped = self.on_error == 'skip'
            then = 'its image is skipped' if skipped else 'all its pixels are ignored'
            report_file(str(path), f'{fault}; {then}')
            if skipped:
                return None
            size = results['img'].shape[:2] if shape is None else shape
            results['gt_seg_map'] = np.full(size, self.ignore_index, np.uint8)
            results['seg_fields'].append('gt_seg_map')
        else:
            mask = results['gt_seg_map']
            if shape is not None and mask.shape != tuple(shape):
                check_size(path, mask.shape, shape, _orientation(results.get('img_path'), shape))
            self.check_classes(mask, path, results['reduce_zero_label'])
        return results

    def read(self, path: str) -> np.ndarray:
        """Return the numbers in a file after ``label_map``: (height, width), uint8.

        Raises:
            InputError: The file has several channels, or other values than 0 to 255.
            OSError, SyntaxError, ValueError, cv2.error: The file cannot be read or decoded.
        """
        content = fileio.get(path, backend_args=self.backend_args)
        mask = mmcv.imfrombytes(content, flag='unchanged', backend=self.imdecode_backend)
        if mask is None:  # OpenCV's way to say that a file is no image
            raise ValueError('not an image')
        mask = mask.squeeze() if mask.ndim > 2 else mask
        if mask.ndim != 2:
            raise InputError(
                f"mask '{path}' has {mask.shape[-1]} channels; expected one channel of class "
                'numbers (a gray or palette PNG)'
            )
        given = mask if mask.dtype == np.uint8 else mask.astype(np.float64)
        numbers = given.copy() if self.label_map else given
        for old, new in self.label_map.items():
            numbers[given == old] = new
        if mask.dtype != np.uint8:
            fits = (numbers >= 0) & (numbers < NUMBERS) & (numbers == np.floor(numbers))
            if not fits.all():
                raise InputError(
                    f"mask '{path}' has the value {numbers[~fits][0]:.10g} (type {mask.dtype}); "
                    'expected integers from 0 to 255: write the class numbers to an 8-bit PNG, or '
                    'replace integers with label_map={OLD: NEW} of LoadAnnotations'
                )
        return numbers.astype(np.uint8, copy=False)

    def reduces(self, of_dataset: bool) -> bool:
        """Return whether the number 0 stands for no class; the dataset must say the same."""
        own = self.reduce_zero_label
        if own is not None and bool(own) != bool(of_dataset):
            raise InputError(
                f'reduce_zero_label: LoadAnnotations has {own}, its dataset {of_dataset}; set it in '
                'the dataset alone'
            )
        return bool(of_dataset)

    def _load_seg_map(self, results: dict) -> None:
        numbers = self.read(results['seg_map_path'])
        reduces, label_map = self.reduces(results['reduce_zero_label']), results.get('label_map')
        if reduces or label_map is not None:
            numbers = class_table(reduces, label_map)[numbers]
        results['gt_seg_map'] = numbers
        results['seg_fields'].append('gt_seg_map')

    def check_classes(self, numbers: np.ndarray, path: str, reduced: bool) -> None:
        """Raise an InputError if there is a number beyond the classes, after all renumbering."""
        if self.num_classes is None:
            return
        greatest = int(numbers.max(initial=0, where=numbers != self.ignore_index))
        if greatest < self.num_classes:
            return
        in_file, first, one_more = greatest + bool(reduced), '', ''
        if reduced:
            first = ', from 1, with 0 for no class'
        elif greatest == self.num_classes:
            one_more = ', or set reduce_zero_label=True of the dataset if 0 means no class'
        raise InputError(
            f"mask '{path}' has the class number {in_file}, but the model has {self.num_classes} "
            f'classes{first}: renumber the masks (label_map={{{in_file}: CLASS}} of LoadAnnotations '
            f'does it while loading){one_more}, or set num_classes of the heads and '
            f'metainfo.classes ({self.ignore_index} means no class)'
        )


def check_size(path: str, size: Sequence[int], needed: Sequence[int], orientation: int = 1) -> None:
    """Raise an InputError if a mask has another size than its image after turning by EXIF.

    Sizes are (height, width); ``orientation`` is that of the image.
    """
    if tuple(size) == tuple(needed):
        return
    advice = 'write the mask in the size of its image'
    if tuple(size) == tuple(needed[::-1]) and orientation > 4:
        advice = (
            f'the EXIF orientation {orientation} turns the image; remove it from the image '
            '(exiftool -Orientation= FILE) if the mask fits the stored pixels, else turn the mask'
        )
    raise InputError(
        f"mask '{path}' has {size[1]} x {size[0]} pixels, its image {needed[1]} x {needed[0]}: {advice}"
    )


def _orientation(image: Any, shape: Sequence[int]) -> int:
    """Return the EXIF orientation by which the loader has turned an image file to a shape, else 1."""
    try:
        header = read_header(image)
    except (*DECODING_ERRORS, AttributeError, TypeError):  # no file on a disk
        return 1
    return header.orientation if header[:2] == tuple(shape) else 1


def class_table(reduces: bool, label_map: Mapping[int, int] | None) -> np.ndarray:
    """Return the class of each number, as mmseg renumbers: (256,), uint8.

    ``reduces``: 0 is no class, and the others go down by one. ``label_map``, of the dataset, follows.
    """
    reduced: np.ndarray = np.arange(NUMBERS, dtype=np.uint8)
    if reduces:
        reduced = np.roll(reduced, 1)
        reduced[[0, _NO_CLASS]] = _NO_CLASS
    table: np.ndarray = reduced.copy()
    for old, new in (label_map or {}).items():
        table[reduced == old] = new
    return table


def _checked(label_map: Any) -> dict[int, int]:
    """Return a map of numbers; ValueError if it is none. ``label_map.255=1`` gives a string as key."""
    try:
        numbers = {
            int(str(old)): new for old, new in ({} if label_map is None else label_map).items()
        }
    except (AttributeError, TypeError, ValueError):
        numbers = {0: None}
    for new in numbers.values():
        if not isinstance(new, int) or isinstance(new, bool) or not 0 <= new < NUMBERS:
            raise ValueError(
                f'label_map: got {label_map!r}; expected a dict of integers, such as {{255: 1}}, with '
                'values from 0 to 255'
            )
    return numbers
