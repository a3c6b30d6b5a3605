"""Check the datasets of the loaders that a run uses.

The hosts report these faults late or never: mmdet drops categories that the annotation file does
not have, and numbers labels in the order of the file; mmpretrain numbers the class folders of each
split separately; mmseg and mmpretrain fail in a worker with a traceback.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from ...config.read import ROOT_VARIABLES
from ...errors import InputError
from ..datasets import DatasetConfig, datasets_of, head_sizes
from .classes import (
    Numbering,
    check_class_list,
    compare_with_training,
    difference,
    find_numbering,
)
from .files import check_coco, check_labels, check_masks, check_packed, few

# The check of the files of a dataset, by the name of its class or of a base class.
FILE_CHECKS: dict[str, Callable[[DatasetConfig, int | None], None]] = {
    'CocoDataset': check_coco,
    'CustomDataset': check_labels,
    'ImageNet': check_labels,
    'PackedDataset': check_packed,
    'BaseSegDataset': check_masks,
}


def check_data(cfg: Mapping, loaders: Sequence[str]) -> None:
    """Check the datasets of some loaders, and the heads of the model against their classes.

    The default scope must be set, so that bare names of datasets are found. Data that is not on a
    local disk is not checked.

    Raises:
        InputError: Something is missing, empty or malformed, or does not fit.
    """
    heads = list(head_sizes(cfg.get('model')))
    numberings: list[Numbering] = []
    for dataset in (found for loader in loaders for found in datasets_of(cfg, loader)):
        _check_heads(heads, dataset)
        if not dataset.is_local:
            continue
        numbering = find_numbering(dataset)
        if numbering is not None:
            numberings.append(numbering)
            if fault := difference(numberings[0], numbering):
                raise InputError(fault)
            check_class_list(numbering, dataset)
        _check_root(dataset)
        limits = [size for _, size in heads] + ([len(dataset.classes)] if dataset.classes else [])
        limit = min(limits, default=None)
        for name, check_files in FILE_CHECKS.items():
            if name in dataset.bases:
                check_files(dataset, limit)
                break
        if numbering is not None and limit not in (None, len(numbering.names)):
            advice = 'label the images in a file (ann_file)' if numbering.of_folders else 'pack all'
            raise InputError(
                f"{dataset.path}: '{numbering.source}' has the classes {few(numbering.names)}, but "
                f'{limit} classes are set (model.head.num_classes, metainfo.classes); set '
                f'{len(numbering.names)}, or {advice}'
            )
    if numberings and 'train_dataloader' not in loaders:
        compare_with_training(cfg, numberings[0])


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


def _check_root(dataset: DatasetConfig) -> None:
    root = dataset.root
    if not root or os.path.isdir(root):
        return
    variable = next((v for name, v in ROOT_VARIABLES.items() if name in dataset.bases), None)
    advice = f'set {variable} in the environment, or {dataset.path}.data_root'
    # A variable that is set to another folder is not read by this config.
    if variable is None or root not in os.environ.get(variable, root):
        advice = 'set it to the folder of the data'
    raise InputError(f"{dataset.path}.data_root: '{root}' is not a folder; {advice}")
