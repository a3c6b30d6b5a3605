"""Check mmpretrain's labels: lists of files and class numbers, or class folders."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log

from ...errors import InputError
from ..datasets import DatasetConfig
from .listed import read_list, require_files


def check_labels(dataset: DatasetConfig, num_classes: int | None) -> None:
    """Check the list of a ``CustomDataset`` or ``ImageNet``, or its class folders."""
    path = dataset.path
    folder, ann_file, labelled = images_and_list(dataset)
    if not folder.is_dir():
        raise InputError(f"{path}: the folder of images '{folder}' does not exist")
    if ann_file is not None:
        names = read_list(path, ann_file)
        if labelled:
            names = [
                _listed_name(f"{path}: '{ann_file}', line {number}", line.strip(), num_classes)
                for number, line in enumerate(names, 1)
            ]
        require_files(path, [folder / name for name in names], f"'{ann_file}' lists the image")
    elif labelled:
        _check_class_folders(dataset, folder, num_classes)


def images_and_list(dataset: DatasetConfig) -> tuple[Path, Path | None, bool]:
    """Return the folder of images, the list of labels if there is one, and whether there are labels."""
    settings = dataset.settings
    split = settings.get('split') or ''
    prefix = settings.get('data_prefix') or split
    prefix = prefix.get('img_path', '') if isinstance(prefix, Mapping) else prefix
    ann_file = dataset.joined(settings.get('ann_file'))
    listed = Path(dataset.root, 'meta', f'{split}.txt')
    if ann_file is None and split and listed.is_file():
        ann_file = listed
    labelled = bool(settings.get('with_label', True)) and split != 'test'
    return Path(dataset.root, prefix), ann_file, labelled


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, in the order in which mmpretrain numbers them."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _listed_name(where: str, line: str, num_classes: int | None) -> str:
    name, _, label = line.rpartition(' ')
    if not name or not label.isdigit():
        raise InputError(f"{where}: got '{line[:60]}'; expected FILE LABEL, with a number from 0")
    if num_classes is not None and int(label) >= num_classes:
        raise InputError(
            f'{where}: label {label}, but there are {num_classes} classes (model.head.num_classes, '
            'metainfo.classes); labels start at 0'
        )
    return name


def _check_class_folders(dataset: DatasetConfig, folder: Path, num_classes: int | None) -> None:
    """Check the number of class folders, and log the empty ones, which keep their number."""
    from mmpretrain.datasets import CustomDataset

    path, names = dataset.path, class_folders(folder)
    if not names:
        raise InputError(f"{path}: '{folder}' has no class folders, and there is no ann_file")
    if num_classes is not None and len(names) != num_classes:
        raise InputError(
            f"{path}: '{folder}' has {len(names)} class folders, {num_classes} classes are set; give "
            'the labels in a file (ann_file), or set metainfo.classes and the head to these folders: '
            f'{", ".join(names[:4])}{", ..." if names[4:] else ""}'
        )
    default = inspect.signature(CustomDataset.__init__).parameters['extensions'].default
    endings = tuple(end.lower() for end in dataset.settings.get('extensions') or default)
    empty = [name for name in names if not _has_image(folder / name, endings)]
    if len(empty) == len(names):
        raise InputError(
            f"{path}: the dataset is empty: no class folder of '{folder}' has an image "
            f'({", ".join(endings)})'
        )
    if empty:
        more = f' and {len(empty) - 3} more' if empty[3:] else ''
        print_log(
            f"{path}: class folders of '{folder}' without an image: "
            f'{", ".join(map(repr, empty[:3]))}{more}; they keep their numbers.',
            'current',
            logging.WARNING,
        )


def _has_image(folder: str | Path, endings: tuple[str, ...]) -> bool:
    """Return whether mmpretrain finds an image at any depth; it ignores hidden files."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # The first image ends the search: listing ImageNet on a network drive takes minutes.
            if entry.name.lower().endswith(endings) and not entry.name.startswith('.'):
                return True
            if entry.is_dir():
                inner.append(entry.path)
    return any(_has_image(path, endings) for path in inner)
