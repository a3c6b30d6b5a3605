"""Count what a host makes of the boxes of a COCO file, and judge it.

mmdet leaves boxes out without a message: those with an area of 0, below 1 px, outside the image, with
``ignore``; those with ``iscrowd`` only mark a region. A run with such a file trains on background.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import print_log

from ...errors import InputError, few
from ..coco import CocoFile

# Shares of the boxes that may be left out without a warning. COCO itself has 1.2 % crowds.
_FEW, _FEW_CROWDS = 0.01, 0.1
_SIZE, _OUTSIDE = 'width or height below 1 px', 'outside the image'
_AREA, _NEGATIVE = 'area of 0 or less', 'negative area'
_IGNORE, _CROWD, _OTHER = 'ignore', 'crowd', 'category not in use'
_SMALL = 'image below filter_cfg.min_size'
_ADVICE = {
    _SIZE: 'bbox is x, y, width and height in pixels, not in shares of the image',
    _OUTSIDE: 'correct bbox, or width and height of the images',
    _AREA: 'set area to the pixels of the object, or to width x height of its bbox',
    _NEGATIVE: 'set area to the pixels of the object, or to width x height of its bbox',
    _IGNORE: 'set ignore to 0 for objects to learn',
    _CROWD: 'set iscrowd to 0; 1 is for a group of objects that are not marked one by one',
    _SMALL: 'lower filter_cfg.min_size',
}


class Boxes(NamedTuple):
    """The boxes of a file as the host takes them: for each its class, and why it is left out."""

    training: bool
    label: np.ndarray  # number of the class; -1 if it is not in use
    reason: np.ndarray  # index in `reasons`; len(reasons) for a box that is used
    reasons: tuple[str, ...]
    image: np.ndarray  # row of the image
    beyond: int  # boxes in use that leave their image by more than 1 px
    corners: bool  # whether the boxes are x1, y1, x2, y2
    twice: int  # boxes in use that stand twice in an image, with the same class

    @classmethod
    def of(
        cls, file: CocoFile, classes: Sequence[str], training: bool, min_size: float = 0
    ) -> 'Boxes':
        """Read the boxes of a file; ``min_size`` is the least side of an image in training."""
        rows, images, categories = (
            file.columns[name] for name in ('annotations', 'images', 'categories')
        )
        count = len(rows['id'])
        numbers = {name: number for number, name in enumerate(classes)}
        labels = {
            one: numbers.get(name, -1)
            for one, name in zip(categories['id'], categories['name'], strict=True)
        }
        places = {one: place for place, one in enumerate(images['id'])}
        label = np.fromiter(map(labels.__getitem__, rows['category_id']), np.int32, count)
        image = np.fromiter(map(places.__getitem__, rows['image_id']), np.int32, count)
        x, y, width, height = np.ascontiguousarray(rows['bbox'].T)
        across, down = images['width'][image], images['height'][image]
        inner_width = np.minimum(x + width, across) - np.maximum(x, 0)
        inner_height = np.minimum(y + height, down) - np.maximum(y, 0)
        left_out = {
            _OTHER: label < 0,
            _SIZE: (width < 1) | (height < 1),
            _OUTSIDE: (inner_width <= 0) | (inner_height <= 0),
            _CROWD: rows['iscrowd'],
        }
        # pycocotools uses no `ignore`, and takes objects with an area of 0.
        if training:
            left_out = {_OTHER: left_out.pop(_OTHER), _IGNORE: rows['ignore'], **left_out}
            left_out |= {_AREA: rows['area'] <= 0, _SMALL: np.minimum(across, down) < min_size}
        else:
            left_out[_NEGATIVE] = rows['area'] < 0
        left_out[_CROWD] = left_out.pop(_CROWD)  # last: the others are faults
        reason = np.select(list(left_out.values()), range(len(left_out)), len(left_out))
        used = label >= 0
        keys = _hashes(np.column_stack([image, label, rows['bbox']])[used])
        return cls(
            training, label, reason, tuple(left_out), image,
            int(beyond(rows['bbox'], across, down)[used].sum()),
            are_corners(rows['bbox'][used], across[used], down[used]),
            len(keys) - len(np.unique(keys)),
        )  # fmt: skip

    def counts(self, chosen: Any = slice(None)) -> dict[str, int]:
        """Return the number of boxes by reason, of all boxes or of some."""
        found = np.bincount(self.reason[chosen], minlength=len(self.reasons))
        return {
            name: int(number) for name, number in zip(self.reasons, found, strict=False) if number
        }

    @property
    def used(self) -> np.ndarray:
        """Whether each box is used."""
        return self.reason == len(self.reasons)


def _hashes(rows: np.ndarray) -> np.ndarray:
    """Return a number for each row of float64; to sort the rows themselves takes seconds."""
    bits = np.ascontiguousarray(rows).view(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, bits.shape[1], np.uint64) * 2 + 1
    return ((bits ^ (bits >> np.uint64(31))) * factors).sum(axis=1)


def beyond(boxes: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return for boxes (n, 4) whether they leave images of some sizes (n) by more than 1 px."""
    x, y, across, down = boxes.T
    return (x < -1) | (y < -1) | (x + across > width + 1) | (y + down > height + 1)


def are_corners(boxes: np.ndarray, width: np.ndarray, height: np.ndarray) -> bool:
    """Return whether boxes (n, 4) are x1, y1, x2, y2: most leave their image, and as corners none."""
    x, y, right, bottom = boxes.T
    fits = (right >= x) & (bottom >= y) & (right <= width + 1) & (bottom <= height + 1)
    return bool(len(boxes) and fits.mean() > 1 - _FEW and beyond(boxes, width, height).mean() > 0.5)


def check_used(boxes: Boxes, where: str, classes: Sequence[str]) -> None:
    """Raise if the host leaves out all boxes of the file or of a class; warn of a part."""
    total = int((boxes.label >= 0).sum())
    if not total:
        raise InputError(
            f'{where}: the dataset is empty: the file has no annotations of the classes in use'
        )
    if boxes.corners:
        raise InputError(
            f'{where}: {boxes.beyond} of {total} boxes leave their image, and all fit as x1, y1, x2, '
            'y2; bbox is x, y, width, height in pixels'
        )
    counts = boxes.counts(boxes.label >= 0)
    if not boxes.used.any():
        raise InputError(f'{where}: none of the {total} boxes is used: {_explained(counts)}')
    in_class = np.bincount(boxes.label[boxes.label >= 0], minlength=len(classes))
    in_use = np.bincount(boxes.label[boxes.used], minlength=len(classes))
    for number in np.flatnonzero((in_class > 0) & (in_use == 0)):
        why = boxes.counts(boxes.label == number)
        text = f"{where}: none of the {in_class[number]} boxes of '{classes[number]}' is used"
        # A class of few objects may have crowds alone in a validation file.
        if set(why) != {_CROWD} or boxes.training:
            raise InputError(f'{text}: {_explained(why)}')
        print_log(f'{text}: {_explained(why)}', 'current', logging.WARNING)
    if boxes.training and (absent := np.flatnonzero(in_class == 0)).size:
        text = f'{where}: no box of {few([classes[number] for number in absent])}'
        print_log(f'{text}; the model does not learn these classes.', 'current', logging.WARNING)
    crowds = counts.pop(_CROWD, 0)
    if crowds > _FEW_CROWDS * total:
        counts[_CROWD] = crowds
    if (left := sum(counts.values())) > _FEW * total:
        text = f'{where}: {left} of {total} boxes are not used: {_explained(counts)}'
        print_log(text, 'current', logging.WARNING)
    for number, what in (
        (boxes.beyond, 'leave their image by more than 1 px; bbox is x, y, width, height'),
        (boxes.twice, 'stand in their image twice, with the same class'),
    ):
        if number > _FEW * total:
            text = f'{where}: {number} of {total} boxes {what}'
            print_log(text, 'current', logging.WARNING)


def _explained(counts: Mapping[str, int]) -> str:
    """Return the reasons with their numbers, and what to do about the most frequent one."""
    reasons = ', '.join(f'{name} {number}' for name, number in counts.items())
    return f'{reasons}; {_ADVICE[max(counts, key=lambda name: counts[name])]}'
