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
from .evaluator import check_evaluator
from .mask_agreement import compare_masks
from .mask_numbers import check_numbers
from .numbering import (
    Numbering,
    check_class_list,
    compare_with_training,
    difference,
    find_numbering,
)
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
    compare_masks(summaries)
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
