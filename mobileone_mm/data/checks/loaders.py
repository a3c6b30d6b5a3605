"""Check the datasets of the loaders that a run uses.

The hosts report these faults late or never: mmdet drops categories that the annotation file does
not have, and numbers labels in the order of the file; mmseg and mmpretrain fail in a worker with a
traceback.
"""

import os
from collections.abc import Callable, Sequence

from mmengine.config import Config

from ...config.read import ROOT_VARIABLES
from ...config.spelling import mistyped
from ...config.tree import mapping
from ...errors import InputError, few
from ..datasets import DatasetConfig, datasets_of, head_sizes
from . import dataset_files
from .batch_sizes import check_batch
from .coco_file import check_coco
from .dataset_settings import check_indices, check_settings
from .evaluator import check_evaluator
from .folders import empty_folders
from .mask_agreement import compare_masks
from .mask_numbers import check_numbers
from .numbering import (
    Numbering,
    check_class_list,
    check_class_lists,
    compare_with_training,
    difference,
    find_numbering,
)
from .summary import Labels, SplitSummary

# The check of the files of a dataset, by the name of its class or of a base class.
FILE_CHECKS: dict[str, Callable[[DatasetConfig, int | None], SplitSummary | Labels | None]] = {
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
    labels: list[Labels] = []
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
                if isinstance(summary, Labels):
                    labels += [summary] if loader == 'train_dataloader' else []
                elif summary is not None:
                    summaries.append(summary)
                break
        check_indices(dataset)
        if [other for other, _ in found].count(loader) == 1:
            check_evaluator(cfg, loader.replace('dataloader', 'evaluator'), dataset)
        check_batch(cfg, dataset)
        if limit is not None and numbering is not None and not numbering.of_list:
            _check_count(numbering, limit)
    check_class_lists([dataset for _, dataset in found])
    check_numbers(summaries)
    if heads and len(labels) == [loader for loader, _ in found].count('train_dataloader'):
        _check_one_class(labels)
    compare_masks(summaries)
    if numberings and 'train_dataloader' not in loaders:
        compare_with_training(cfg, numberings[0])
    return summaries


def _check_one_class(labels: Sequence[Labels]) -> None:
    """Check that the training data, if all its labels are known, has two classes at least."""
    present = {number for each in labels for number in each.numbers}
    if len(present) == 1:
        sources = few([str(each.source) for each in labels])
        raise InputError(
            f'{labels[0].path}: all images of {sources} have the class {present.pop()}, so the '
            'model learns nothing; give images of two classes at least, with their labels'
        )


def _check_count(numbering: Numbering, limit: int) -> None:
    """Check the number of class folders, or of a pack's classes, against that of the config."""
    count = len(numbering.names)
    if count == limit:
        return
    advice = 'label the images in a file (ann_file)' if numbering.of_folders else 'pack all'
    if count > 1:
        advice = f'set {count}, or {advice}'
    if numbering.of_folders and (empty := empty_folders(numbering.source, numbering.names)):
        advice = f'remove the empty folders {few(empty)}, or {advice}'
    raise InputError(
        f"{numbering.path}: '{numbering.source}' has the classes {few(numbering.names)}, but {limit} "
        f'classes are set (model.head.num_classes, metainfo.classes); {advice}'
    )


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
