"""Check annotation files in COCO's format against the class list and the images of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..coco import check_references, read_coco
from ..datasets import DatasetConfig
from .listed import require_files


def check_coco(dataset: DatasetConfig, _: int | None = None) -> None:
    """Check that an annotation file is complete, and fits the class list and the images."""
    ann_file = dataset.joined(dataset.settings.get('ann_file'))
    if ann_file is None or not _has_host_reader(dataset):
        return
    table = read_coco(ann_file, f'{dataset.path}.ann_file')
    check_references(table, f"{dataset.path}.ann_file: '{ann_file}'")
    classes = dataset.classes
    if classes is not None:
        _check_categories(table, classes, f"{dataset.path}: '{ann_file}'")
    used = {row['id'] for row in table['categories'] if classes is None or row['name'] in classes}
    if not table['images'] or not any(row['category_id'] in used for row in table['annotations']):
        missing = 'annotations of the classes in use' if table['images'] else 'images'
        raise InputError(f"{dataset.path}: the dataset is empty: '{ann_file}' has no {missing}")
    if dataset.loads_local_images:
        folder = Path(dataset.root, dataset.prefix('img'))
        if not folder.is_dir():
            raise InputError(f"{dataset.path}.data_prefix.img: '{folder}' is not a folder")
        images = [folder / image['file_name'] for image in table['images']]
        require_files(dataset.path, images, f"'{ann_file}' lists the image")


def _check_categories(table: Mapping[str, Any], classes: Sequence[str], where: str) -> None:
    """Check a class list: it may omit categories, but mmdet numbers labels in the file's order."""
    found = [row['name'] for row in table['categories']]
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(
            f'{where} does not have the classes {_few(missing)}; it has {_few(found)}: set '
            "metainfo=dict(classes=...) of every dataset, and the head's num_classes"
        )
    order = [name for name in found if name in set(classes)]
    if order != list(classes):
        pairs = zip(order, classes, strict=False)
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), len(classes))
        raise InputError(
            f'{where}: the order of the classes differs from metainfo.classes at number {place} '
            f'({_few(order[place:])} in the file); labels follow the file: use its order'
        )


def _has_host_reader(dataset: DatasetConfig) -> bool:
    """Return whether mmdet's method reads the file; a derived class may replace it."""
    base = next(base for base in dataset.kind.__mro__ if base.__name__ == 'CocoDataset')
    return getattr(dataset.kind, 'load_data_list', None) is vars(base).get('load_data_list')


def _few(names: Sequence[str]) -> str:
    shown = ', '.join(f"'{name}'" for name in names[:3])
    return f'{shown}, ... ({len(names)} in total)' if len(names) > 3 else shown or 'none'
