"""What there is to pack: a folder of images, or the dataset of a config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from ...errors import InputError
from .tar_members import NO_LABEL
from .writing import Item


def items_of_folder(
    folder: str | os.PathLike[str], with_label: bool = True
) -> tuple[list[Item], tuple[str, ...] | None]:
    """The images below a folder; one folder for each class, numbered by their sorted names.

    Args:
        folder: The folder.
        with_label: Whether the folders in it are classes.

    Returns:
        The images, in mmpretrain's order, and the names of the classes.

    Raises:
        InputError: There is no folder, or no image in it.
    """
    from mmpretrain.datasets import CustomDataset

    if not Path(folder).is_dir():
        raise InputError(f"'{folder}' is no folder")
    if with_label and not any(entry.is_dir() for entry in os.scandir(folder)):
        raise InputError(
            f"'{folder}' has no folder per class; give --no-labels, or a config, to pack it"
        )
    try:
        dataset = CustomDataset(data_root=str(folder), with_label=with_label, pipeline=[])
    except RuntimeError as error:  # that is how it reports an empty folder
        raise InputError(f"'{folder}' has no images in its folders") from error
    return _items(dataset), dataset.CLASSES


def items_of_dataset(settings: Mapping[str, Any]) -> tuple[list[Item], tuple[str, ...] | None]:
    """The images of a dataset, by its settings; the default scope must be set.

    Returns:
        The images in its order, and the names of the classes if it has classes.

    Raises:
        InputError: It has no list of images, or several classes an image.
    """
    dataset = DATASETS.build({**settings, 'pipeline': []})
    if not hasattr(dataset, 'get_data_info') or len(dataset) == 0:
        raise InputError(f'{type(dataset).__name__}: no dataset with a list of images')
    items = _items(dataset)
    labelled = items[0].label != NO_LABEL
    return items, tuple(dataset.metainfo.get('classes') or ()) or None if labelled else None


def _items(dataset: Any) -> list[Item]:
    items = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path, label = str(info.get('img_path', '')), info.get('gt_label', NO_LABEL)
        if not path:
            raise InputError(f'{type(dataset).__name__}: sample {index} has no img_path')
        if type(label) is not int:
            raise InputError(f"'{path}': {label!r} as its class; one number an image can be packed")
        items.append(Item(path, _name(path, dataset), label))
    return items


def _name(path: str, dataset: Any) -> str:
    """The name below the folder of images, or below the root of the data."""
    for folder in (getattr(dataset, 'img_prefix', ''), getattr(dataset, 'data_root', '')):
        name = os.path.relpath(path, folder) if folder else '..'
        if not name.startswith('..'):
            return Path(name).as_posix()
    return Path(path).name
