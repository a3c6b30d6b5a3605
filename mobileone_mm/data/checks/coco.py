"""Checks of annotation files of COCO's form against the class list of a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..packed.checks import loads_elsewhere

# The keys that mmdet reads, by table.
_NEEDED = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
_LOOKUPS = 200


def check_coco(path: str, dataset: Mapping, kind: type, classes: Sequence[str] | None) -> None:
    """Check an annotation file, the images that it names and the class list.

    Args:
        path: Where the dataset stands in the config.
        dataset: Its config.
        kind: Its class; a class with a reader of its own is left alone.
        classes: The class list in force.

    Raises:
        InputError: The file is not of COCO's form, a class is missing in it or stands elsewhere in
            the order, an image is missing, or nothing is left to train on.
    """
    if not _reads_coco(kind) or not dataset.get('ann_file'):
        return
    root = dataset.get('data_root') or ''
    file = Path(root, dataset['ann_file'])
    table = read_coco(file, f'{path}.ann_file')
    if classes is not None:
        check_categories(table, classes, f"{path}: '{file}'")
    _check_left(table, classes, path, file)
    if loads_elsewhere(dataset):
        return
    folder = Path(root, (dataset.get('data_prefix') or {}).get('img', ''))
    if not folder.is_dir():
        raise InputError(f"{path}.data_prefix.img: '{folder}' is no folder")
    images = table['images'][:: max(1, len(table['images']) // _LOOKUPS)]
    missing = [
        image['file_name'] for image in images if not (folder / image['file_name']).is_file()
    ]
    if missing:
        raise InputError(
            f"{path}: '{file}' names the image '{missing[0]}', which is not in '{folder}' "
            f'({len(missing)} of {len(images)} looked for are missing)'
        )


def read_coco(file: Path, name: str) -> dict[str, Any]:
    """Read an annotation file and check its form.

    Raises:
        InputError: It is missing, no JSON, or lacks a table or a key that is read.
    """
    try:
        table = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{name}: '{file}' does not exist") from None
    except OSError as error:
        raise InputError(f"{name}: '{file}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: '{file}' is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise InputError(
            f"{name}: '{file}' holds a {type(table).__name__}; COCO's form is a dict with images, "
            'annotations and categories'
        )
    for key, needed in _NEEDED.items():
        rows = table.get(key)
        if not isinstance(rows, list):
            raise InputError(f"{name}: '{file}' is not of COCO's form: it has no list '{key}'")
        _check_rows(rows, needed, f"{name}: '{file}': {key}")
    _check_references(table, f"{name}: '{file}'")
    return table


def _check_rows(rows: list, needed: Sequence[str], where: str) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f'{where}[{index}] is a {type(row).__name__}; a dict is needed')
        for key in needed:
            if key not in row:
                raise InputError(f"{where}[{index}] has no '{key}'")
        box = row.get('bbox')
        if 'bbox' in needed and not (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(v, (int, float)) for v in box)
        ):
            raise InputError(f'{where}[{index}].bbox: got {str(box)[:60]}; [x, y, width, height]')


def _check_references(table: dict[str, Any], where: str) -> None:
    for key, target in (('image_id', 'images'), ('category_id', 'categories')):
        known = {row['id'] for row in table[target]}
        for index, row in enumerate(table['annotations']):
            if row[key] not in known:
                raise InputError(
                    f'{where}: annotations[{index}].{key} {row[key]} is not in {target}'
                )
    ids = {row['id'] for row in table['annotations']}
    if len(ids) != len(table['annotations']):
        raise InputError(f'{where}: annotation ids are not unique')


def check_categories(table: Mapping[str, Any], classes: Sequence[str], where: str) -> None:
    """Check a class list against the categories of an annotation file.

    Categories that the list does not name are left out on purpose. mmdet takes labels in the
    file's order, so the list must have that order too.

    Raises:
        InputError: The file lacks a class, or has the classes in another order.
    """
    found = [row['name'] for row in table['categories']]
    missing = [name for name in classes if name not in found]
    if missing:
        shown = ', '.join(f"'{name}'" for name in missing[:3])
        more = f' and {len(missing) - 3} more' if len(missing) > 3 else ''
        raise InputError(
            f'{where} does not have the classes {shown}{more}; it has {_few(found)}: set '
            "metainfo=dict(classes=...) of every dataset, and the head's num_classes"
        )
    order = [name for name in found if name in set(classes)]
    if order != list(classes):
        pairs = zip(order, classes, strict=False)
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), len(classes))
        raise InputError(
            f'{where}: the order of the classes differs from metainfo.classes at number {place} '
            f'({_few(order[place:])} in the file); labels follow the file, so use its order'
        )


def _check_left(
    table: Mapping[str, Any], classes: Sequence[str] | None, path: str, file: Path
) -> None:
    if not table['images']:
        raise InputError(f"{path}: the dataset is empty: '{file}' has no images")
    used = {row['id'] for row in table['categories'] if classes is None or row['name'] in classes}
    if not any(row['category_id'] in used for row in table['annotations']):
        raise InputError(
            f"{path}: the dataset is empty: '{file}' has no annotation of the classes in use"
        )


def _reads_coco(kind: type) -> bool:
    base = next((c for c in kind.__mro__ if c.__name__ == 'CocoDataset'), None)
    return base is not None and getattr(kind, 'load_data_list', None) is vars(base).get(
        'load_data_list'
    )


def _few(names: Sequence[str]) -> str:
    shown = ', '.join(f"'{name}'" for name in names[:3])
    return f'{shown}, ... ({len(names)} in all)' if len(names) > 3 else shown or 'none'
