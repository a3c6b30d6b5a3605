"""Check a packed dataset."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ...errors import InputError
from ..datasets import DatasetConfig
from ..packed.packs import CLASSES, LABELS, LmdbPack, open_pack, read_classes
from .listed import sparse


def check_packed(dataset: DatasetConfig, num_classes: int | None) -> None:
    """Check that a packed dataset can be opened, its lists, and its classes against the model's.

    If the index of tar shards is missing, it is built here.
    """
    folder = pack_folder(dataset)
    with_label = bool(dataset.settings.get('with_label', True))
    try:
        pack = open_pack(folder)
        labels = dict(pack.samples())
        pack.places(labels, with_label)
        if isinstance(pack, LmdbPack):
            for name in sparse(list(labels)):
                _look_up(pack, name)
        if not labels:
            raise InputError(f"the dataset is empty: '{folder}' has no image")
        if with_label:
            _check_classes(folder, labels.values(), num_classes)
    except InputError as error:
        raise InputError(f'{dataset.path}: {error}') from error


def pack_folder(dataset: DatasetConfig) -> Path:
    """Return the folder of a packed dataset, by its settings."""
    prefix = dataset.settings.get('data_prefix') or dataset.settings.get('split') or ''
    return Path(dataset.root, str(prefix)).expanduser()


def _look_up(pack: LmdbPack, name: str) -> None:
    try:
        found = name in pack
    except OSError as error:
        raise InputError(f"'{pack.folder}' cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(
            f"'{pack.folder}': {LABELS} lists '{name}', which the LMDB does not have; pack the "
            'dataset again'
        )


def _check_classes(folder: Path, labels: Collection[int], num_classes: int | None) -> None:
    classes, greatest = read_classes(folder), max(labels)
    if min(labels) < 0:
        raise InputError(f"'{folder}' has images without a class; pack the dataset with classes")
    if num_classes is not None and greatest >= num_classes:
        raise InputError(
            f"'{folder}' has an image of class {greatest}, but there are {num_classes} classes "
            '(model.head.num_classes, metainfo.classes); classes start at 0'
        )
    if classes is None:
        return
    names = f"'{folder / CLASSES}' names {len(classes)} classes"
    if greatest >= len(classes):
        raise InputError(
            f'{names}, but there is an image of class {greatest}; give a line for each class from 0, '
            'or pack the dataset again'
        )
    if num_classes is not None and len(classes) != num_classes:
        raise InputError(
            f'{names}, {num_classes} classes are set (model.head.num_classes, metainfo.classes); set '
            f'{len(classes)}, or pack all classes'
        )
