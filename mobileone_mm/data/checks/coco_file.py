"""Check a COCO file against the class list and the images."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ...config.spelling import mistyped
from ...errors import InputError, few
from ..coco import CocoFile, read_coco
from ..datasets import DatasetConfig
from .coco_boxes import Boxes, check_used
from .dataset_files import require_files, require_folder
from .image_sizes import check_sizes, sizes_of
from .summary import SplitSummary


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
    _check_twice(file)
    least = 0 if testing else (dataset.settings.get('filter_cfg') or {}).get('min_size') or 0
    boxes = Boxes.of(file, classes, not testing, least)
    if file.get('annotations') or not testing:  # an unlabelled test file has none
        check_used(boxes, file.where, classes)
    if dataset.loads_local_images:
        if folder:
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
    near = {_visible(name): name for name in others}.get(_visible(missing[0]))
    near = near or mistyped(missing[0], others)
    if near is not None or len(others) == len(missing):
        same = few(others) if near is None else f"'{near}'"
        if near is not None and near.strip() != near.encode('ascii', 'ignore').decode():
            same += f' ({near!a}, not {missing[0]!a})'
        return f'{said}; it has {same}: use the same name in the file and in metainfo.classes'
    place = list(classes).index(missing[0])
    where = f"after '{classes[place - 1]}'" if place else f"before '{classes[1]}'"
    return (
        f"{said}; add a row {{'id': ..., 'name': '{missing[0]}'}} with a new id to its 'categories' "
        f'{where}' + (', and so on in the order of metainfo.classes' if len(missing) > 1 else '')
    )


def _visible(name: str) -> str:
    """Return what a reader sees of a name, in lower case."""
    kept = (char for char in unicodedata.normalize('NFC', name) if char.isprintable())
    return ''.join(kept).strip().casefold()


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


def _check_twice(file: CocoFile) -> None:
    """Check that no image has two rows: each would lack the objects of the other one."""
    names = file.columns['images']['file_name']
    if len(set(names)) != len(names):
        last = {name: index for index, name in enumerate(names)}
        first = next(index for index, name in enumerate(names) if last[name] != index)
        raise InputError(
            f'{file.where}: images[{first}] and images[{last[names[first]]}] are both '
            f"'{names[first]}'; "
            'give an image one row, to which all its annotations refer'
        )


def _summary(
    dataset: DatasetConfig, file: CocoFile, boxes: Boxes, classes: Sequence[str]
) -> SplitSummary:
    with_boxes = np.zeros(len(file.columns['images']['id']), bool)
    with_boxes[boxes.image[boxes.used]] = True
    counts: dict[str, int | str] = {
        'images': len(with_boxes),
        'images without boxes': int((~with_boxes).sum()),
        'boxes used': int(boxes.used.sum()),
    }
    if dataset.settings.get('indices') is not None:
        counts['indices'] = 'a part of these images'
    by_class = np.bincount(boxes.label[boxes.used], minlength=len(classes)).tolist()
    return SplitSummary(
        dataset.path, str(dataset.settings['ann_file']), 'boxes', counts, boxes.counts(),
        dict(zip(classes, by_class, strict=True)),
    )  # fmt: skip
