"""Which class has which number in the data, and in the class list.

mmpretrain numbers the sorted class folders of each split separately, and compares only their count
with the class list: one additional folder in a split shifts all labels after it.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from mmengine.logging import print_log

from ...errors import InputError, few
from ..datasets import DatasetConfig, datasets_of
from ..lists import read_lines, spread
from ..packed.packs import CLASSES
from .dataset_files import images_and_list
from .folders import class_folders, empty_folders, refuse_strays

Names: TypeAlias = tuple[str, ...]
#: how the names of two class lists of one length differ, the most certain first: 'order', the same
#: names; 'moved', common names at other numbers; 'other'; 'unknown', in words that cannot be compared
Difference: TypeAlias = Literal['', 'order', 'moved', 'other', 'unknown']
#: a wnid such as n01440764, or a number: says nothing beside a readable name
_CODE = re.compile(r'n\d{8}|\d+')
_MARKS = re.compile(r'[\W_]+')
# A list with a greater number is none of classes, and check_labels refuses it.
_MOST_CLASSES = 100_000
_MOST_LINES = 50_000  # ImageNet has 1300 of each class


class Numbering(NamedTuple):
    """The class names by number in the data of a dataset."""

    path: str  # of the dataset in the config
    source: Path  # the folder of class folders, the list of images, or the class list of a pack
    names: Names  # '' for a number without an image in a list
    of_list: bool = False  # the list need not have an image of each class

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
        folder = images_and_list(dataset)[0].expanduser()
        lines = read_lines(folder / CLASSES, f'{path}: ')
        return None if lines is None else Numbering(path, folder / CLASSES, tuple(lines))
    if dataset.reader != 'mmpretrain.datasets.custom':
        return None
    folder, ann_file, labelled = images_and_list(dataset)
    if not labelled or not folder.is_dir():
        return None
    if ann_file is not None:
        names = _listed_folders(read_lines(ann_file, f'{path}.ann_file: ') or ())
        return Numbering(path, ann_file, names, of_list=True) if names else None
    names = class_folders(folder)
    refuse_strays(path, folder, names)
    return Numbering(path, folder, names)


def _listed_folders(lines: Sequence[str]) -> Names:
    """Return the folders of listed images by label; empty if they are not the classes.

    They are the classes if there are at least two, each with a label of its own. Folders that all names
    begin with do not count. Of a long list, a part is looked at.
    """
    lines = spread(lines, _MOST_LINES)
    start = os.path.commonprefix(lines).rfind('/') + 1  # noqa: RUF071 (is cut at a slash)
    labels: dict[str, str] = {}
    for line in lines:
        folder, slash, rest = line[start:].partition('/')
        label = rest.rstrip().rpartition(' ')[2]
        if not slash or labels.setdefault(folder, label) != label:
            return ()
    if not all(label.isdecimal() for label in labels.values()):
        return ()
    folders = {int(label): folder for folder, label in labels.items()}
    if not 2 <= len(folders) == len(labels) or max(folders) >= _MOST_CLASSES:
        return ()
    return tuple(folders.get(number, '') for number in range(max(folders) + 1))


def comparable(first: Names, second: Names) -> tuple[Names, Names]:
    """Return both lists without case, spaces and punctuation, if their names stay different."""
    plain = [tuple(_MARKS.sub('', name.casefold()) for name in names) for names in (first, second)]
    kept = all(len({*a}) == len({*b}) for a, b in zip(plain, (first, second), strict=True))
    return (plain[0], plain[1]) if kept else (first, second)


def list_difference(stored: Names, names: Names) -> Difference:
    """Tell how two lists of one length differ."""
    first, second = comparable(stored, names)
    if first == second:
        return ''
    if sorted(first) == sorted(second):
        return 'order'
    moved, placed = _common(first, second)
    if len(moved) > placed:
        return 'moved'
    in_codes = [all(_CODE.fullmatch(name) for name in each) for each in (first, second)]
    return 'unknown' if in_codes[0] != in_codes[1] else 'other'


def _common(first: Names, second: Names) -> tuple[list[str], int]:
    """Return the names with other numbers, and how many names have the same; only of unique names."""
    one, other = (
        {name: number for number, name in enumerate(names) if counts[name] == 1}
        for names, counts in ((first, Counter(first)), (second, Counter(second)))
    )
    moved = [name for name in one if other.get(name, one[name]) != one[name]]
    return moved, sum(a == b for a, b in zip(first, second, strict=True))


def check_class_list(found: Numbering, dataset: DatasetConfig) -> None:
    """Check the class list in force against the numbers of the data.

    Names in other words, such as readable names instead of wnids, cannot be compared.
    """
    classes = dataset.classes
    if classes is None or len(classes) != len(found.names):
        return  # other checks compare the number of classes
    where = f'{found.path}: the class list of {dataset.kind.__name__}'
    if dataset.class_list is not None:
        where, _ = dataset.class_list
    first, second = comparable(classes, found.names)
    others = [number for number, name in enumerate(second) if name and first[number] != name]
    known = set(first)
    if moved := [number for number in others if second[number] in known]:
        order = 'the sorted folders of ' if found.of_folders else ''
        raise InputError(
            f"{where}: class {moved[0]} is '{classes[moved[0]]}', but the labels have the order of "
            f"{order}'{found.source}', where it is '{found.names[moved[0]]}'; use this order"
        )
    if 0 < len(others) < sum(map(bool, found.names)):
        named = ', '.join(f"'{found.names[n]}' is called '{classes[n]}'" for n in others[:3])
        text = f"{where}: in '{found.source}' {named}; the other names agree."
        print_log(text, 'current', logging.WARNING)


def difference(first: Numbering, second: Numbering) -> str:
    """Describe how the classes or numbers of two datasets differ; empty if they are the same.

    Class lists without a common name, such as wnids and readable names, cannot be compared.
    """
    if first.of_list or second.of_list:
        return _other_numbers(first, second)
    both_folders = first.of_folders and second.of_folders
    disjoint = set(first.names).isdisjoint(second.names)
    if first.names == second.names or (disjoint and not both_folders):
        return ''
    parts, empty = [], []
    for one, other in ((first, second), (second, first)):
        known = set(other.names)
        if alone := [name for name in one.names if name not in known]:
            parts.append(f'{few(alone)} is only in {one}')
            empty += empty_folders(one.source, alone) if both_folders else []
    if not parts:  # the class list of a packed dataset may have any order
        pairs = zip_longest(first.names, second.names)
        number, pair = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        parts = [f"class {number} is '{pair[0]}' in {first}, '{pair[1]}' in {second}"]
    advice = 'pack both with the same classes'
    if both_folders:
        advice = 'give both the same class folders (they may be empty)'
        if empty:
            advice = f'remove the empty folders {few(empty)}, or {advice}'
    return (
        f'{second.path}: its labels differ from those of {first.path}: {", ".join(parts)}; {advice}'
    )


def check_class_lists(datasets: Sequence[DatasetConfig]) -> None:
    """Check that the class lists of all datasets of a run have one order; each gives its own numbers.

    Names that differ are a warning.
    """
    listed = [dataset for dataset in datasets if dataset.classes]
    for dataset in listed[1:]:
        first, second = listed[0].classes or (), dataset.classes or ()
        if len(first) != len(second):  # the heads show that
            continue
        kind = list_difference(first, second)
        if kind in ('', 'unknown'):
            continue
        number = next(
            n for n, names in enumerate(zip(first, second, strict=True)) if len({*names}) > 1
        )
        text = (
            f"{dataset.path}: class {number} is '{second[number]}', but '{first[number]}' in "
            f'{listed[0].path}'
        )
        if kind == 'order':
            raise InputError(f'{text}; give metainfo.classes of both the same order')
        print_log(f'{text}; labels have the same numbers.', 'current', logging.WARNING)


def _other_numbers(first: Numbering, second: Numbering) -> str:
    """Describe a common class with two numbers; empty if there is none."""
    numbers = {name: number for number, name in enumerate(second.names) if name}
    for number, name in enumerate(first.names):
        if numbers.get(name, number) != number:
            return (
                f"{second.path}: its labels differ from those of {first.path}: '{name}' is class "
                f'{number} in {first}, and class {numbers[name]} in {second}; use the same numbers in '
                'both (class folders are numbered in the order of their sorted names)'
            )
    return ''


def compare_with_training(cfg: Mapping, tested: Numbering) -> None:
    """Log a difference to the training data of the config. The training may have used other data."""
    for dataset in datasets_of(cfg, 'train_dataloader'):
        if dataset.is_local:
            with suppress(InputError, OSError):
                trained = find_numbering(dataset)
                if trained is not None and (fault := difference(trained, tested)):
                    print_log(fault, 'current', logging.WARNING)
            return
