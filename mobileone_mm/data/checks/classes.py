"""Check that a number means the same class in all datasets of a run.

mmpretrain numbers the sorted class folders of each split separately, and compares only their count
with the class list: one additional folder in a split shifts all labels after it without a message.
A packed dataset has the numbers of the dataset that was packed.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from ...config.tree import mapping
from ...errors import InputError
from ..datasets import DatasetConfig, datasets_of
from ..packed.packs import CLASSES, read_classes
from .files import class_folders, images_and_list, pack_folder


class Numbering(NamedTuple):
    """The class names by number in the data of a dataset, with its path in the config.

    ``source`` is the folder of class folders, or the class list of a packed dataset.
    """

    path: str
    source: Path
    names: tuple[str, ...]

    @property
    def of_folders(self) -> bool:
        """Whether the names are those of folders."""
        return self.source.is_dir()

    def __str__(self) -> str:
        return f"{self.path} ('{self.source}')"


def find_numbering(dataset: DatasetConfig) -> Numbering | None:
    """Return the class names that the data of a dataset has; None if it has none or is missing."""
    path = dataset.path
    if 'PackedDataset' in dataset.bases and dataset.settings.get('with_label', True):
        folder = pack_folder(dataset)
        try:
            classes = read_classes(folder)
        except InputError as error:
            raise InputError(f'{path}: {error}') from error
        return None if classes is None else Numbering(path, folder / CLASSES, classes)
    reader = getattr(dataset.kind, 'load_data_list', None)
    if getattr(reader, '__module__', None) != 'mmpretrain.datasets.custom':
        return None
    folder, ann_file, labelled = images_and_list(dataset)
    if ann_file is not None or not labelled or not folder.is_dir():
        return None
    return Numbering(path, folder, class_folders(folder))


def check_class_list(found: Numbering, dataset: DatasetConfig) -> None:
    """Check the class list in force against the numbers of the data.

    Names in other words, such as readable names instead of wnids, cannot be compared.
    """
    classes = dataset.classes
    if classes is None or len(classes) != len(found.names):
        return  # other checks compare the number of classes
    where = f'{found.path}: the class list of {dataset.kind.__name__}'
    if mapping(dataset.settings.get('metainfo')).get('classes') is not None:
        where = f'{found.path}.metainfo.classes'
    elif dataset.settings.get('classes') is not None:
        where = f'{found.path}.classes'
    others = []
    for number, (given, name) in enumerate(zip(classes, found.names, strict=True)):
        if given != name and name in classes:
            order = 'the sorted folders of ' if found.of_folders else ''
            raise InputError(
                f"{where}: class {number} is '{given}', but the labels have the order of {order}"
                f"'{found.source}', where it is '{name}'; use this order"
            )
        if given != name:
            others.append(f"'{name}' is called '{given}'")
    if 0 < len(others) < len(classes):
        print_log(
            f"{where}: in '{found.source}' {', '.join(others[:3])}; the other names agree.",
            'current',
            logging.WARNING,
        )


def difference(first: Numbering, second: Numbering) -> str:
    """Describe how the classes or numbers of two datasets differ; empty if they are the same.

    Class lists without a common name, such as wnids and readable names, cannot be compared.
    """
    both_folders = first.of_folders and second.of_folders
    disjoint = set(first.names).isdisjoint(second.names)
    if first.names == second.names or (disjoint and not both_folders):
        return ''
    parts = []
    for one, other in ((first, second), (second, first)):
        alone = [name for name in one.names if name not in other.names]
        if alone:
            more = f' (and {len(alone) - 1} more)' if alone[1:] else ''
            parts.append(f"'{alone[0]}'{more} is only in {one}")
    if not parts:  # the class list of a packed dataset may have any order
        pairs = zip_longest(first.names, second.names)
        number, pair = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        parts = [f"class {number} is '{pair[0]}' in {first}, '{pair[1]}' in {second}"]
    advice = 'pack both with the same classes'
    if both_folders:
        advice = 'give both the same class folders (they may be empty)'
    return (
        f'{second.path}: its labels differ from those of {first.path}: {", ".join(parts)}; {advice}'
    )


def compare_with_training(cfg: Mapping, tested: Numbering) -> None:
    """Log a difference to the training data of the config. The training may have used other data."""
    for dataset in datasets_of(cfg, 'train_dataloader'):
        if dataset.is_local:
            with suppress(InputError, OSError):
                trained = find_numbering(dataset)
                if trained is not None and (fault := difference(trained, tested)):
                    print_log(fault, 'current', logging.WARNING)
            return
