"""The images to pack: those of a folder, or those of a dataset of a config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.registry import DATASETS

from ...errors import InputError
from .shards import NO_LABEL


class Item(NamedTuple):
    """An image to pack: its path or address, its name in the pack, and its class (-1 for none)."""

    path: str
    name: str
    label: int = NO_LABEL


Source = tuple[list[Item], tuple[str, ...] | None]


def items_of_folder(folder: str | os.PathLike[str], with_label: bool = True) -> Source:
    """List the images below a folder, in mmpretrain's order, and the class names.

    With ``with_label``, the folders in it are classes, numbered in the order of their names.

    Raises:
        InputError: The folder does not exist, or has no image.
    """
    if not Path(folder).is_dir():
        raise InputError(f"'{folder}' is not a folder")
    if with_label and not any(entry.is_dir() for entry in os.scandir(folder)):
        raise InputError(f"'{folder}' has no class folders; pass --no-labels, or a config")
    settings = dict(type='mmpretrain.CustomDataset', data_root=str(folder), with_label=with_label)
    try:
        return items_of_dataset(settings)
    except RuntimeError as error:  # mmpretrain's error for an empty folder
        raise InputError(f"'{folder}' has no images in its folders") from error


def items_of_dataset(settings: Mapping[str, Any]) -> Source:
    """List the images of a dataset by its settings, in its order, and the class names if it has any.

    The default scope must be set.

    Raises:
        InputError: The dataset has no list of images, or an image has several classes.
    """
    dataset = DATASETS.build({**settings, 'pipeline': []})
    if not hasattr(dataset, 'get_data_info') or len(dataset) == 0:
        raise InputError(f'{type(dataset).__name__} has no list of images')
    items: list[Item] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path, label = str(info.get('img_path', '')), info.get('gt_label', NO_LABEL)
        if not path:
            raise InputError(f'{type(dataset).__name__}: sample {index} has no img_path')
        if type(label) is not int:
            raise InputError(
                f"'{path}': got the class {label!r}; expected one number for each image"
            )
        items.append(Item(path, _name(path, dataset), label))
    labelled = items[0].label != NO_LABEL
    return items, tuple(dataset.metainfo.get('classes') or ()) or None if labelled else None


def _name(path: str, dataset: Any) -> str:
    """Return the name below the folder of images, or below the data root."""
    for folder in (getattr(dataset, 'img_prefix', ''), getattr(dataset, 'data_root', '')):
        name = os.path.relpath(path, folder) if folder else '..'
        if not name.startswith('..'):
            return Path(name).as_posix()
    return Path(path).name
