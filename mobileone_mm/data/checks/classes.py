"""Checks that a number means the same class in all datasets of a run.

mmpretrain numbers the sorted folders of each split by themselves, and compares no more than their
count with the class list: with another folder in one split all labels behind it are shifted, and
nothing says so. A packed dataset brings numbers that were given when it was packed.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from ...errors import InputError
from ..packed.checks import pack_folder
from ..packed.packs import CLASSES, read_classes


class Numbering(NamedTuple):
    """Names of the classes by number, as the data itself has them.

    Attributes:
        path: Path of the dataset in the config.
        source: Folder of class folders, or the list of a packed dataset.
        names: The names.
        of_folders: Whether they are those of folders.
    """

    path: str
    source: Path
    names: tuple[str, ...]
    of_folders: bool

    def __str__(self) -> str:
        return f"{self.path} ('{self.source}')"


def find_numbering(path: str, dataset: Mapping, kind: type) -> Numbering | None:
    """Where the labels of a dataset come from, if that has names; None if not, or if it is missing.

    Args:
        path: Path of the dataset in the config.
        dataset: Its settings.
        kind: Its class.

    Raises:
        InputError: The list of a packed dataset cannot be read.
    """
    names = [base.__name__ for base in inspect.getmro(kind)]
    if 'PackedDataset' in names and dataset.get('with_label', True):
        folder = pack_folder(dataset)
        try:
            classes = read_classes(folder)
        except InputError as error:
            raise InputError(f'{path}: {error}') from error
        return None if classes is None else Numbering(path, folder / CLASSES, classes, False)
    loader = getattr(kind, 'load_data_list', None)
    if getattr(loader, '__module__', None) != 'mmpretrain.datasets.custom':
        return None
    folder, ann_file, labelled = images_and_list(dataset)
    if ann_file is not None or not labelled or not folder.is_dir():
        return None
    return Numbering(path, folder, tuple(class_folders(folder)), True)


def images_and_list(dataset: Mapping) -> tuple[Path, Path | None, bool]:
    """Where mmpretrain's ``CustomDataset`` or ``ImageNet`` finds its data.

    Returns:
        The folder of images, the list of labels if there is one, and whether there are labels.
    """
    split = dataset.get('split') or ''
    prefix = dataset.get('data_prefix') or split
    prefix = prefix.get('img_path', '') if isinstance(prefix, Mapping) else prefix
    folder = joined(dataset, prefix) or Path(dataset.get('data_root') or '')
    ann_file = joined(dataset, dataset.get('ann_file'))
    if ann_file is None and split:
        ann_file = joined(dataset, f'meta/{split}.txt')
        ann_file = ann_file if ann_file and ann_file.is_file() else None
    return folder, ann_file, bool(dataset.get('with_label', True)) and split != 'test'


def class_folders(folder: Path) -> list[str]:
    """The folders in a folder, in the order in which mmpretrain numbers them."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def check_images(path: str, folder: Path, extensions: Sequence[str] | None = None) -> None:
    """Check that the class folders have images; log those that have none.

    They are allowed: an empty folder keeps the numbers of those behind it.

    Args:
        path: Path of the dataset in the config.
        folder: The folder of class folders.
        extensions: Endings of images; those of mmpretrain by default.

    Raises:
        InputError: All of them are empty.
    """
    from mmpretrain.datasets import CustomDataset

    default = inspect.signature(CustomDataset.__init__).parameters['extensions'].default
    endings = tuple(ending.lower() for ending in extensions or default)
    names = class_folders(folder)
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
    """Whether mmpretrain would find an image, at any depth, hidden files left out."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # The first one ends the search: listing all of ImageNet on a network drive takes minutes.
            if entry.name.lower().endswith(endings) and not entry.name.startswith('.'):
                return True
            if entry.is_dir():
                inner.append(entry.path)
    return any(_has_image(path, endings) for path in inner)


def joined(dataset: Mapping, name: str | None) -> Path | None:
    """A path below the data root, as mmengine's datasets join it; None for an empty name."""
    if not name:
        return None
    return Path(dataset.get('data_root') or '', name)


def check_class_list(
    found: Numbering, dataset: Mapping, kind: type, classes: Sequence[str] | None
) -> None:
    """Check the class list in force against the numbers of the data.

    Names that are other words than those of the data, such as readable ones for wnids, cannot be
    compared.

    Args:
        found: The numbering of the data.
        dataset: The settings of the dataset.
        kind: Its class.
        classes: The class list in force.

    Raises:
        InputError: A name stands at another number.
    """
    if classes is None or len(classes) != len(found.names):
        return  # the numbers of classes are checked elsewhere
    metainfo = dataset.get('metainfo')
    where = f'{found.path}: the class list of {kind.__name__}'
    if isinstance(metainfo, Mapping) and metainfo.get('classes') is not None:
        where = f'{found.path}.metainfo.classes'
    elif dataset.get('classes') is not None:
        where = f'{found.path}.classes'
    others = []
    for number, (given, name) in enumerate(zip(classes, found.names, strict=True)):
        if given != name and name in classes:
            order = 'the sorted folders of ' if found.of_folders else ''
            raise InputError(
                f"{where}: class {number} is '{given}', but labels are numbered in the order of "
                f"{order}'{found.source}', where it is '{name}'; give the names in this order"
            )
        if given != name:
            others.append(f"'{name}' is called '{given}'")
    if 0 < len(others) < len(classes):
        print_log(
            f"{where}: in '{found.source}' {', '.join(others[:3])}; the other names agree.",
            'current',
            logging.WARNING,
        )


def check_alike(first: Numbering, second: Numbering) -> None:
    """Check that two datasets number their classes alike.

    Lists of packed datasets that have no name in common, such as wnids and readable names, cannot
    be compared.

    Raises:
        InputError: Naming a class that is in one of them alone, or has another number.
    """
    if first.names == second.names:
        return
    both_folders = first.of_folders and second.of_folders
    if not both_folders and set(first.names).isdisjoint(second.names):
        return
    parts = []
    for one, other in ((first, second), (second, first)):
        alone = [name for name in one.names if name not in other.names]
        if alone:
            more = f' (and {len(alone) - 1} more)' if alone[1:] else ''
            parts.append(f"'{alone[0]}'{more} is in {one} alone")
    if not parts:  # a list of a packed dataset is in any order
        pairs = zip_longest(first.names, second.names)
        number, pair = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        parts = [f"class {number} is '{pair[0]}' in {first}, '{pair[1]}' in {second}"]
    advice = 'pack both with the same classes'
    if both_folders:
        advice = 'give both the same class folders (they may be empty)'
    raise InputError(
        f'{second.path}: its labels are not those of {first.path}: {", ".join(parts)}; {advice}'
    )


def note_unlike(reference: Numbering, found: Numbering) -> None:
    """Log what :func:`check_alike` would refuse, where the reference may be of another training."""
    try:
        check_alike(reference, found)
    except InputError as error:
        print_log(str(error), 'current', logging.WARNING)
