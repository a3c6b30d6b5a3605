"""Check a COCO file against the class list and the images, and count what the host makes of it.

mmdet leaves boxes out without a message: those with an area of 0, below 1 px, outside the image, with
``ignore``; those with ``iscrowd`` only mark a region. A run with such a file trains on background.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import print_log

from ...config.spelling import mistyped
from ...errors import InputError, few
from ..coco import CocoFile, read_coco
from ..datasets import DatasetConfig
from .dataset_files import require_files, require_folder
from .image_sizes import check_sizes, sizes_of
from .summary import SplitSummary

# Shares of the boxes that may be left out without a warning. COCO itself has 1.2 % crowds.
_FEW, _FEW_CROWDS = 0.01, 0.1
_SIZE, _OUTSIDE, _AREA = 'width or height below 1 px', 'outside the image', 'area of 0 or less'
_IGNORE, _CROWD, _OTHER = 'ignore', 'crowd', 'category not in use'
_ADVICE = {
    _SIZE: 'bbox is x, y, width and height in pixels, not in shares of the image',
    _OUTSIDE: 'correct bbox, or width and height of the images',
    _AREA: 'set area to the pixels of the object, or to width x height of its bbox',
    _IGNORE: 'set ignore to 0',
    _CROWD: 'set iscrowd to 0; 1 is for a group of objects that are not marked one by one',
}


def check_coco(dataset: DatasetConfig, _: int | None = None) -> SplitSummary | None:
    """Check that an annotation file fits the class list and the images, and count its boxes."""
    path, ann_file = dataset.path, dataset.joined(dataset.settings.get('ann_file'))
    if ann_file is None or not dataset.has_coco_boxes:
        return None
    testing = bool(dataset.settings.get('test_mode'))
    file = read_coco(ann_file, f'{path}.ann_file', unlabelled=testing)
    file.check_references()
    classes = dataset.classes or tuple(file.columns['categories']['name'])
    check_categories(file, classes)
    names = file.columns['images']['file_name']
    if not names:
        raise InputError(f'{file.where}: the dataset is empty: the file has no images')
    folder = dataset.joined(dataset.prefix('img')) or dataset.root
    check_image_names(file, folder)
    boxes = _Boxes.of(file, classes, training=not testing)
    if 'annotations' in file:
        _check_used(boxes, file.where, classes)
    if dataset.loads_local_images:
        require_folder(f'{path}.data_prefix.img', folder)
        require_files(path, names, partial(os.path.join, folder), 'image', ann_file)
        check_sizes(path, sizes_of(file['images'], Path(folder)), dataset.turns_by_exif)
    return _summary(dataset, file, boxes, classes)


def check_categories(file: CocoFile, classes: Sequence[str]) -> None:
    """Check a class list: it may omit categories, but mmdet numbers labels in the file's order."""
    ids, found = (file.columns['categories'][key] for key in ('id', 'name'))
    times, chosen = Counter(found), set(classes)  # of 13,000 names in V3Det
    missing = [name for name in classes if name not in times]
    if missing:
        raise InputError(f'{file.where} does not have {_missing(missing, found, classes)}')
    order = [name for name in found if name in chosen]
    twice = next((name for name in order if times[name] > 1), None)
    if twice is not None:
        same = [one for one, name in zip(ids, found, strict=True) if name == twice]
        used = set(file.columns['annotations']['category_id'])
        empty = [one for one in same if one not in used]
        advice = f'remove the row with the id {empty[0]!r}, which has no boxes' if empty else (
            f'set category_id to {same[0]!r} in all its annotations and remove the other rows'
        )  # fmt: skip
        raise InputError(
            f"{file.where}: 'categories' has '{twice}' {len(same)} times (ids "
            f'{", ".join(map(repr, same))}); {advice}'
        )
    if order != list(classes):
        place = next(i for i, (a, b) in enumerate(zip_longest(order, classes)) if a != b)
        raise InputError(
            f'{file.where}: the order of the classes differs from metainfo.classes at number {place}: '
            f"'{order[place]}' in the file, '{classes[place]}' in metainfo.classes, and labels follow "
            f"the file; put the rows of its 'categories' in the order {few(classes)} (ids may stay)"
        )


def _missing(missing: Sequence[str], found: Sequence[str], classes: Sequence[str]) -> str:
    """Return what a file lacks, and the one thing to do about it."""
    others = [name for name in found if name not in classes]
    said = f'the class{"es" if len(missing) > 1 else ""} {few(missing)}'
    if len(others) == len(found):
        return (
            f'{said}; it has {few(found)}: set metainfo=dict(classes=...) of every dataset to them, '
            "and the head's num_classes to their number"
        )
    folded = {name.strip().casefold(): name for name in others}
    near = folded.get(missing[0].strip().casefold()) or mistyped(missing[0], others)
    if near is not None or len(others) == len(missing):
        same = f"'{near}'" if near is not None else few(others)
        return f'{said}; it has {same}: use the same name in the file and in metainfo.classes'
    place = list(classes).index(missing[0])
    where = f"after '{classes[place - 1]}'" if place else f"before '{classes[1]}'"
    return (
        f"{said}; add a row {{'id': ..., 'name': '{missing[0]}'}} with a new id to its 'categories' "
        f'{where}' + (', and so on in the order of metainfo.classes' if len(missing) > 1 else '')
    )


def check_image_names(file: CocoFile, folder: str | os.PathLike[str]) -> None:
    """Check that the images are below their folder; with an empty folder, paths may be absolute."""
    base = os.path.normpath(folder) if folder else ''
    for index, name in enumerate(file.columns['images']['file_name']):
        if '..' not in name and name[0] not in '/\\' and name[1:2] != ':':
            continue  # the usual name; the rest takes long for a large file
        target = os.path.normpath(os.path.join(base, name))
        inside = target.startswith(os.path.join(base, '')) if base else not target.startswith('..')
        if not inside:
            raise InputError(
                f'{file.where}: images[{index}].file_name: got {name!r}; expected a path below '
                f"'{base or '.'}', the folder of the images"
            )


class _Boxes(NamedTuple):
    """The boxes of a file as the host takes them: for each its class, and why it is left out."""

    label: np.ndarray  # number of the class; -1 if it is not in use
    reason: np.ndarray  # index in `reasons`; len(reasons) for a box that is used
    reasons: tuple[str, ...]
    image: np.ndarray  # row of the image
    beyond: int  # boxes in use that leave their image by more than 1 px
    corners: bool  # whether the boxes look like x1, y1, x2, y2

    @classmethod
    def of(cls, file: CocoFile, classes: Sequence[str], training: bool) -> '_Boxes':
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
        # The evaluation of pycocotools uses no `ignore`, and needs no area of a box.
        left_out = {
            _OTHER: label < 0,
            **({_IGNORE: rows['ignore']} if training else {}),
            _SIZE: (width < 1) | (height < 1),
            _OUTSIDE: (inner_width <= 0) | (inner_height <= 0),
            **({_AREA: rows['area'] <= 0} if training else {}),
            _CROWD: rows['iscrowd'],
        }
        reason = np.select(list(left_out.values()), range(len(left_out)), len(left_out))
        beyond = (x < -1) | (y < -1) | (x + width > across + 1) | (y + height > down + 1)
        corners = (width >= x) & (height >= y) & (width <= across + 1) & (height <= down + 1)
        used = label >= 0
        return cls(
            label, reason, tuple(left_out), image, int(beyond[used].sum()),
            bool(used.any() and corners[used].mean() > 1 - _FEW),
        )  # fmt: skip

    def counts(self, chosen: Any = slice(None)) -> dict[str, int]:
        """Return the number of boxes by reason, of all boxes or of some."""
        found = np.bincount(self.reason[chosen], minlength=len(self.reasons))
        return {
            name: int(number) for name, number in zip(self.reasons, found, strict=False) if number
        }

    @property
    def used(self) -> np.ndarray:
        return self.reason == len(self.reasons)


def _check_used(boxes: _Boxes, where: str, classes: Sequence[str]) -> None:
    """Raise if the host leaves out all boxes of the file or of a class; warn of a part."""
    total = int((boxes.label >= 0).sum())
    if not total:
        raise InputError(
            f'{where}: the dataset is empty: the file has no annotations of the classes in use'
        )
    if boxes.corners and boxes.beyond > total / 2:
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
        if set(why) != {_CROWD} or _AREA in boxes.reasons:
            raise InputError(f'{text}: {_explained(why)}')
        print_log(f'{text}: {_explained(why)}', 'current', logging.WARNING)
    if _AREA in boxes.reasons and (absent := np.flatnonzero(in_class == 0)).size:
        text = f'{where}: no box of {few([classes[number] for number in absent])}'
        print_log(f'{text}; the model does not learn these classes.', 'current', logging.WARNING)
    crowds = counts.pop(_CROWD, 0)
    if crowds > _FEW_CROWDS * total:
        counts[_CROWD] = crowds
    if (left := sum(counts.values())) > _FEW * total:
        text = f'{where}: {left} of {total} boxes are not used: {_explained(counts)}'
        print_log(text, 'current', logging.WARNING)
    if boxes.beyond > _FEW * total:
        text = f'{where}: {boxes.beyond} of {total} boxes leave their image by more than 1 px'
        asked = '; is bbox x1, y1, x2, y2 instead of x, y, width, height?'
        text += asked if boxes.beyond > total / 2 else ''
        print_log(text, 'current', logging.WARNING)


def _explained(counts: Mapping[str, int]) -> str:
    """Return the reasons with their numbers, and what to do about the most frequent one."""
    reasons = ', '.join(f'{name} {number}' for name, number in counts.items())
    return f'{reasons}; {_ADVICE[max(counts, key=lambda name: counts[name])]}'


def _summary(
    dataset: DatasetConfig, file: CocoFile, boxes: _Boxes, classes: Sequence[str]
) -> SplitSummary:
    images = file.columns['images']
    with_boxes = np.zeros(len(images['id']), bool)
    with_boxes[boxes.image[boxes.used]] = True
    counts: dict[str, int | str] = {'images': len(with_boxes)}
    counts['images without boxes'] = int((~with_boxes).sum())
    filters = dataset.settings.get('filter_cfg') or {}
    if not dataset.settings.get('test_mode') and (least := filters.get('min_size')):
        small = np.minimum(images['height'], images['width']) < least
        if small.all():
            raise InputError(
                f'{dataset.path}.filter_cfg.min_size: got {least}; every image of the file is smaller'
            )
        if small.any():
            counts[f'images left out (below {least} px)'] = int(small.sum())
    counts['boxes used'] = int(boxes.used.sum())
    by_class = np.bincount(boxes.label[boxes.used], minlength=len(classes)).tolist()
    return SplitSummary(
        dataset.path, str(dataset.settings['ann_file']), 'boxes', counts, boxes.counts(),
        dict(zip(classes, by_class, strict=True)),
    )  # fmt: skip
