"""Checks of the data before a run: what is missing or does not fit is named in one line.

The hosts find out later, if at all: mmdet drops categories that the annotation file does not have,
and counts labels in the file's order whatever the order of the class list; mmpretrain numbers the
class folders of each split by themselves (:mod:`mobileone_mm.data.checks.classes`); mmseg and mmpretrain
fail in a worker with a traceback; an empty dataset ends in NumPy's "need at least one array".
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ...errors import InputError
from ..packed.checks import MAX_LOOKUPS, check_packed, loads_elsewhere
from .classes import (
    Numbering,
    check_alike,
    check_class_list,
    check_images,
    class_folders,
    find_numbering,
    images_and_list,
    joined,
    note_unlike,
)
from .coco import check_coco

# What the configs read their data roots from.
ROOT_VARIABLES = {
    'CocoDataset': 'COCO_ROOT',
    'ImageNet': 'IMAGENET_ROOT',
    'PackedDataset': 'IMAGENET_ROOT',
    'PascalVOCDataset': 'VOC_ROOT',
    'ADE20KDataset': 'ADE_ROOT',
    'CustomDataset': 'FOLDER_ROOT',  # after ImageNet, which is one
}
# Heads whose num_classes is that of the dataset; a region proposal head's is not.
HEADS = ('auxiliary_head', 'bbox_head', 'decode_head', 'head')


def check_data(cfg: Mapping, loaders: Sequence[str]) -> None:
    """Check the datasets of some loaders, and the model's heads against their classes.

    The default scope must be set, so that bare names of datasets are found. Data that is not on a
    local disk is left alone.

    Args:
        cfg: A config of the Runner.
        loaders: Which loaders the run uses, such as ``train_dataloader``.

    Raises:
        InputError: Something is missing, empty, malformed or does not fit.
    """
    heads = list(head_sizes(cfg.get('model')))
    numberings: list[Numbering] = []
    for loader in loaders:
        settings = cfg.get(loader)
        if not isinstance(settings, Mapping):
            continue
        for path, dataset in leaves(settings.get('dataset'), f'{loader}.dataset'):
            kind = dataset_class(dataset)
            if kind is None:
                continue
            classes = class_names(dataset, kind)
            _check_heads(heads, path, classes)
            if not _is_local(dataset):
                continue
            numbering = find_numbering(path, dataset, kind)
            if numbering is not None:
                numberings.append(numbering)
                check_alike(numberings[0], numbering)
                check_class_list(numbering, dataset, kind, classes)
            check_dataset(path, dataset, kind, classes, heads)
    if 'train_dataloader' not in loaders:
        _note_other_training(cfg, numberings)


def _note_other_training(cfg: Mapping, numberings: Sequence[Numbering]) -> None:
    """What a test without a training can find out, if the training data is there, too."""
    settings = cfg.get('train_dataloader')
    if not isinstance(settings, Mapping) or not numberings:
        return
    for path, dataset in leaves(settings.get('dataset'), 'train_dataloader.dataset'):
        kind = dataset_class(dataset)
        if kind is None or not _is_local(dataset):
            continue
        with suppress(InputError, OSError):
            trained = find_numbering(path, dataset, kind)
            if trained is not None:
                note_unlike(trained, numberings[0])
        return


def leaves(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """The datasets inside wrappers (repeat, concatenate, mix), each with its path."""
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get('dataset'), Mapping):
        yield from leaves(node['dataset'], f'{path}.dataset')
    elif isinstance(node.get('datasets'), (list, tuple)):
        for index, inner in enumerate(node['datasets']):
            yield from leaves(inner, f'{path}.datasets.{index}')
    else:
        yield path, node


def dataset_class(dataset: Mapping) -> type | None:
    """The class that a dataset's config names; None where it is not known (building tells)."""
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
            kind = registry.get(kind)
    return kind if inspect.isclass(kind) else None


def class_names(dataset: Mapping, kind: type) -> tuple[str, ...] | None:
    """The class list in force: the config's, else the dataset's own; None if it has none."""
    metainfo = dataset.get('metainfo')
    classes = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
    if classes is None:
        classes = dataset.get('classes')  # mmpretrain's older way of saying it
    if isinstance(classes, str):
        try:
            names = Path(classes).read_text(encoding='utf-8').splitlines()
        except OSError:
            names = [classes]
        classes = [name.strip() for name in names if name.strip()]
    if classes is None:
        classes = getattr(kind, 'METAINFO', {}).get('classes')
    return None if classes is None else tuple(classes)


def check_dataset(
    path: str,
    dataset: Mapping,
    kind: type,
    classes: Sequence[str] | None,
    heads: Sequence[tuple[str, int]] = (),
) -> None:
    """Check the files of one dataset.

    Raises:
        InputError: See :func:`check_data`.
    """
    names = [base.__name__ for base in inspect.getmro(kind)]
    root = dataset.get('data_root') or ''
    if root and not os.path.isdir(root):
        variable = next((v for name, v in ROOT_VARIABLES.items() if name in names), None)
        # Where the variable is set and stands in the way of nothing, the config does not read it.
        unread = variable is not None and root not in os.environ.get(variable, root)
        advice = f'set {variable} in the environment, or {path}.data_root'
        advice = 'set it to the folder of the data' if variable is None or unread else advice
        raise InputError(f"{path}.data_root: '{root}' is no folder; {advice}")
    limit = min([number for _, number in heads] + ([len(classes)] if classes else []), default=None)
    if 'CocoDataset' in names:
        check_coco(path, dataset, kind, classes)
    elif 'CustomDataset' in names or 'ImageNet' in names:
        _check_labels(path, dataset, limit)
    elif 'PackedDataset' in names:
        check_packed(path, dataset, limit)
    elif 'BaseSegDataset' in names:
        _note_renumbering(path, kind, classes)
        try:
            _check_masks(path, dataset, kind)
        except InputError as error:
            if _has_sbd_masks(dataset):
                raise InputError(
                    f'{error}; without the masks of SBD set VOC_TRAIN=train in the environment'
                ) from error
            raise


def require_files(path: str, files: Sequence[Path], what: str) -> None:
    """Check that files exist, all of them or evenly many of a long list.

    Raises:
        InputError: Naming the first one that does not.
    """
    step = max(1, len(files) // MAX_LOOKUPS)
    missing = [file for file in files[::step] if not file.is_file()]
    if missing:
        count = f'{len(missing)} of {len(files[::step])} looked for'
        raise InputError(f"{path}: {what} '{missing[0]}' does not exist ({count} are missing)")


def _check_labels(path: str, dataset: Mapping, num_classes: int | None) -> None:
    """mmpretrain's lists of files and labels; without a list, folders named by class."""
    folder, ann_file, labelled = images_and_list(dataset)
    if not folder.is_dir():
        raise InputError(f"{path}: the folder of images '{folder}' does not exist")
    if ann_file is None:
        if labelled:
            _check_class_folders(path, folder, num_classes)
            check_images(path, folder, dataset.get('extensions'))
        return
    lines = _lines(path, ann_file)
    files = [_labelled(path, ann_file, row, line, num_classes) if labelled else line
             for row, line in enumerate(lines, 1)]  # fmt: skip
    require_files(path, [folder / name for name in files], f"'{ann_file}' names an image:")


def _labelled(path: str, ann_file: Path, row: int, line: str, num_classes: int | None) -> str:
    name, _, label = line.strip().rpartition(' ')
    if not name or not label.isdigit():
        raise InputError(
            f"{path}: '{ann_file}', line {row}: got '{line[:60]}'; FILE LABEL is needed, the label "
            'a number from 0'
        )
    if num_classes is not None and int(label) >= num_classes:
        raise InputError(
            f"{path}: '{ann_file}', line {row}: label {label}, but there are {num_classes} classes "
            '(model.head.num_classes, metainfo.classes); labels count from 0'
        )
    return name


def _check_class_folders(path: str, folder: Path, num_classes: int | None) -> None:
    names = class_folders(folder)
    found = len(names)
    if found == 0:
        raise InputError(f"{path}: '{folder}' has no folder per class, and there is no ann_file")
    if num_classes is not None and found != num_classes:
        raise InputError(
            f"{path}: '{folder}' has {found} class folders, {num_classes} classes are set; give the "
            'labels in a file (ann_file), or set metainfo.classes and the head to these folders: '
            f'{", ".join(names[:4])}{", ..." if names[4:] else ""}'
        )


def _check_masks(path: str, dataset: Mapping, kind: type) -> None:
    """mmseg's pairs of image and mask; a list names them, or the folder of images does."""
    if loads_elsewhere(dataset):
        return
    prefix = dataset.get('data_prefix') or {}
    images, masks = (
        joined(dataset, prefix.get('img_path')),
        joined(dataset, prefix.get('seg_map_path')),
    )
    for name, folder in (('img_path', images), ('seg_map_path', masks)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{path}.data_prefix.{name}: '{folder}' is no folder")
    if images is None:
        return
    suffix, mask_suffix = (_suffix(dataset, kind, key) for key in ('img_suffix', 'seg_map_suffix'))
    ann_file = joined(dataset, dataset.get('ann_file'))
    if ann_file is not None and not ann_file.is_dir():
        names = [line.strip() for line in _lines(path, ann_file)]
        where = f"'{ann_file}' names a"
    else:
        names = sorted(
            str(file.relative_to(images))[: -len(suffix)] for file in images.rglob(f'*{suffix}')
        )
        where = 'the'
        if not names:
            raise InputError(f"{path}: the dataset is empty: no *{suffix} below '{images}'")
    require_files(path, [images / f'{name}{suffix}' for name in names], f'{where} image')
    if masks is not None and not dataset.get('test_mode'):
        require_files(path, [masks / f'{name}{mask_suffix}' for name in names], f'{where} mask')


def _has_sbd_masks(dataset: Mapping) -> bool:
    folder = (dataset.get('data_prefix') or {}).get('seg_map_path') or ''
    return Path(folder).name == 'SegmentationClassAug'


def _note_renumbering(path: str, kind: type, classes: Sequence[str] | None) -> None:
    own = getattr(kind, 'METAINFO', {}).get('classes')
    if own and classes is not None and tuple(own) != tuple(classes):
        print_log(
            f'{path}: masks are read in the numbering of {kind.__name__} ({_first(own)}) and '
            f'renumbered to metainfo.classes ({_first(classes)}). For masks that have the numbers of '
            'metainfo.classes already, set type=BaseSegDataset.',
            'current',
        )


def _first(classes: Sequence[str]) -> str:
    return ', '.join(f'{number} {name}' for number, name in enumerate(classes[:3])) + ', ...'


def _suffix(dataset: Mapping, kind: type, key: str) -> str:
    if dataset.get(key):
        return str(dataset[key])
    for base in inspect.getmro(kind):
        init = vars(base).get('__init__')
        parameter = (
            inspect.signature(init).parameters.get(key) if inspect.isfunction(init) else None
        )
        if parameter is not None:
            return str(parameter.default)
    return ''


def _lines(path: str, file: Path) -> list[str]:
    try:
        text = file.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise InputError(f"{path}.ann_file: '{file}' does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}.ann_file: '{file}' is no readable list: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: the dataset is empty: '{file}' names no image")
    return lines


def head_sizes(node: Any, path: str = 'model') -> Iterator[tuple[str, int]]:
    """Path and value of ``num_classes`` of every head of a model's config."""
    if not isinstance(node, Mapping):
        return
    for key in ('roi_head', *HEADS):
        for place, head in _dicts(node.get(key), f'{path}.{key}'):
            if head.get('num_classes') is not None:
                yield f'{place}.num_classes', head['num_classes']
            yield from head_sizes(head, place)


def _dicts(value: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(value, Mapping):
        yield path, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _dicts(item, f'{path}.{index}')


def _check_heads(
    heads: Sequence[tuple[str, int]], path: str, classes: Sequence[str] | None
) -> None:
    for place, number in heads:
        if not isinstance(number, int):
            raise InputError(f'{place}: got {number!r}; the number of classes is needed')
        if classes is not None and number != len(classes):
            raise InputError(
                f'{place} is {number}, but {path} has {len(classes)} classes; set it to '
                f"{len(classes)}, or metainfo.classes to the model's"
            )


def _is_local(dataset: Mapping) -> bool:
    backend = dataset.get('backend_args') or {}
    remote = isinstance(backend, Mapping) and backend.get('backend', 'local') not in (
        'local',
        'disk',
    )
    return not remote and '://' not in str(dataset.get('data_root') or '')
