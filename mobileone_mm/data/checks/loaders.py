"""Check the datasets of the loaders that a run uses.

The hosts report these faults late or never: mmdet drops categories that the annotation file does
not have, and numbers labels in the order of the file; mmseg and mmpretrain fail in a worker with a
traceback. mmpretrain numbers the sorted class folders of each split separately, and compares only
their count with the class list: one additional folder in a split shifts all labels after it.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.logging import print_log

from ...config.read import ROOT_VARIABLES
from ...config.spelling import mistyped
from ...config.tree import mapping
from ...errors import InputError, few
from ..datasets import DatasetConfig, datasets_of, head_sizes
from ..lists import read_lines
from ..packed.packs import CLASSES
from . import dataset_files
from .batch_sizes import check_batch
from .coco_file import check_coco
from .dataset_settings import check_indices, check_settings
from .evaluator import check_evaluator
from .folders import class_folders
from .mask_numbers import check_numbers
from .summary import SplitSummary

# The check of the files of a dataset, by the name of its class or of a base class.
FILE_CHECKS: dict[str, Callable[[DatasetConfig, int | None], SplitSummary | None]] = {
    'CocoDataset': check_coco,
    'CustomDataset': dataset_files.check_labels,
    'PackedDataset': dataset_files.check_packed,
    'XMLDataset': dataset_files.check_xml,
    'BaseSegDataset': dataset_files.check_masks,
}


def check_data(cfg: Config, loaders: Sequence[str]) -> list[SplitSummary]:
    """Check the datasets of some loaders, and the heads of the model against their classes.

    Returns what a run gets from each dataset, if its check counts that.

    The default scope must be set, so that bare names of datasets are found. Data that is not on a
    local disk is not checked.
    """
    heads = list(head_sizes(cfg.get('model')))
    numberings: list[Numbering] = []
    summaries: list[SplitSummary] = []
    found = [(loader, dataset) for loader in loaders for dataset in datasets_of(cfg, loader)]
    for _, dataset in found:
        check_settings(dataset)  # of all, as this reads no file
    for loader, dataset in found:
        _check_metainfo(dataset)
        _check_heads(heads, dataset)
        if not dataset.is_local:
            continue
        numbering = find_numbering(dataset)
        if numbering is not None:
            numberings.append(numbering)
            if fault := difference(numberings[0], numbering):
                raise InputError(fault)
            check_class_list(numbering, dataset)
        _check_root(dataset, cfg.text)
        limits = [size for _, size in heads] + ([len(dataset.classes)] if dataset.classes else [])
        limit = min(limits, default=None)
        for name, check_files in FILE_CHECKS.items():
            if name in dataset.bases:
                summary = check_files(dataset, limit)
                summaries += [summary] if summary else []
                break
        check_indices(dataset)
        if [other for other, _ in found].count(loader) == 1:
            check_evaluator(cfg, loader.replace('dataloader', 'evaluator'), dataset)
        check_batch(cfg, dataset)
        if numbering is not None and limit not in (None, len(numbering.names)):
            advice = 'label the images in a file (ann_file)' if numbering.of_folders else 'pack all'
            raise InputError(
                f"{dataset.path}: '{numbering.source}' has the classes "
                f'{few(numbering.names)}, but {limit} classes are '
                'set (model.head.num_classes, metainfo.classes); set '
                f'{len(numbering.names)}, or {advice}'
            )
    check_numbers(summaries)
    if numberings and 'train_dataloader' not in loaders:
        compare_with_training(cfg, numberings[0])
    return summaries


def _check_metainfo(dataset: DatasetConfig) -> None:
    """Check the key of the class list: the hosts ignore any other, such as the older ``CLASSES``."""
    for key in mapping(dataset.settings.get('metainfo')):
        if key != 'classes' and (key.lower() == 'classes' or mistyped(key, ['classes'])):
            raise InputError(
                f"{dataset.path}.metainfo: nothing reads '{key}'; rename it to 'classes'"
            )


def _check_heads(heads: Sequence[tuple[str, int]], dataset: DatasetConfig) -> None:
    for place, number in heads:
        if not isinstance(number, int):
            raise InputError(f'{place}: got {number!r}; expected the number of classes')
        count = number if dataset.classes is None else len(dataset.classes)
        if number != count:
            raise InputError(
                f'{place} is {number}, but {dataset.path} has {count} classes; set it to {count}, or '
                "set metainfo.classes to the model's classes"
            )


def _check_root(dataset: DatasetConfig, text: str) -> None:
    root = dataset.root
    if not root or os.path.isdir(root):
        return
    variable = next((v for name, v in ROOT_VARIABLES.items() if name in dataset.bases), None)
    advice = f'set {variable} in the environment, or {dataset.path}.data_root'
    if variable is None or f'${variable}:' not in text:
        advice = 'set it to the folder of the data'
    raise InputError(f"{dataset.path}.data_root: '{root}' is not a folder; {advice}")


class Numbering(NamedTuple):
    """The class names by number in the data of a dataset."""

    path: str  # of the dataset in the config
    source: Path  # the folder of class folders, or the class list of a packed dataset
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
        folder = dataset_files.images_and_list(dataset)[0].expanduser()
        names = read_lines(folder / CLASSES, f'{path}: ')
        return None if names is None else Numbering(path, folder / CLASSES, tuple(names))
    if dataset.reader != 'mmpretrain.datasets.custom':
        return None
    folder, ann_file, labelled = dataset_files.images_and_list(dataset)
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
    if dataset.class_list is not None:
        where, _ = dataset.class_list
    pairs = zip(range(len(classes)), classes, found.names, strict=True)
    others = [(number, given, name) for number, given, name in pairs if given != name]
    for number, given, name in others:
        if name in classes:
            order = 'the sorted folders of ' if found.of_folders else ''
            raise InputError(
                f"{where}: class {number} is '{given}', but the labels have the order of {order}"
                f"'{found.source}', where it is '{name}'; use this order"
            )
    if 0 < len(others) < len(classes):
        named = ', '.join(f"'{name}' is called '{given}'" for _, given, name in others[:3])
        text = f"{where}: in '{found.source}' {named}; the other names agree."
        print_log(text, 'current', logging.WARNING)


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
            parts.append(f'{few(alone)} is only in {one}')
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
