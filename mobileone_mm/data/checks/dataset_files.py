"""Check the files of a dataset: lists of files, class folders, masks, packed data."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from mmengine.logging import print_log

from ...errors import InputError, few
from ..datasets import DatasetConfig
from ..lists import read_lines, spread
from ..packed.packs import CLASSES, LABELS, LmdbPack, open_pack, read_classes
from .folders import check_folder, check_suffix, class_folders
from .mask_numbers import MaskSummary, count_pixels
from .summary import Labels

# A look-up of every file of a large dataset on a network drive would take minutes.
MAX_LOOKUPS = 2000
_T = TypeVar('_T')


def check_labels(dataset: DatasetConfig, num_classes: int | None) -> Labels | None:
    """Check the list of a ``CustomDataset`` or ``ImageNet``, or its class folders."""
    path = dataset.path
    folder, ann_file, labelled = images_and_list(dataset)
    require_folder(f'{path}.data_prefix', folder)
    numbers: set[int] = set()
    if ann_file is not None:
        names = _read_list(path, ann_file)
        if labelled:
            labels = _listed_labels(path, ann_file, names, num_classes)
            names, numbers = list(labels), set(labels.values())
        require_files(path, names, folder.joinpath, 'image', ann_file)
    elif labelled or dataset.lists_folders:
        endings = tuple(end.lower() for end in _setting(dataset, 'extensions'))
        numbers = check_folder(path, folder, endings, class_folders(folder) if labelled else None)
    return Labels(path, ann_file or folder, numbers) if labelled else None


def images_and_list(dataset: DatasetConfig) -> tuple[Path, Path | None, bool]:
    """Return the folder of images, the list of labels if there is one, and whether there are labels."""
    settings = dataset.settings
    split = settings.get('split') or ''
    prefix = settings.get('data_prefix') or split
    prefix = prefix.get('img_path', '') if isinstance(prefix, Mapping) else prefix
    ann_file = dataset.joined(settings.get('ann_file'))
    listed = Path(dataset.root, 'meta', f'{split}.txt')
    if ann_file is None and split and listed.is_file():
        ann_file = listed
    labelled = bool(settings.get('with_label', True)) and split != 'test'
    return Path(dataset.root, prefix), ann_file, labelled


def _listed_labels(
    path: str, ann_file: Path, lines: Sequence[str], num_classes: int | None
) -> dict[str, int]:
    """Return the label of each listed image."""
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, _, given = line.strip().rpartition(' ')
        label = int(given) if given.isdecimal() else -1
        if not name or label < 0:
            fault = f'got {line[:60]!r}; expected FILE LABEL, with one space and a number from 0'
        elif num_classes is not None and label >= num_classes:
            fault = (
                f'label {label}, but there are {num_classes} classes (model.head.num_classes, '
                'metainfo.classes); labels start at 0'
            )
        elif labels.setdefault(name, label) != label:
            fault = f"'{name}' has label {label}, but label {labels[name]} in an earlier line"
        else:
            continue
        raise InputError(f"{path}: '{ann_file}', line {number}: {fault}")
    return labels


def check_xml(dataset: DatasetConfig, _: int | None = None) -> None:
    """Check the list of a dataset in VOC's format, and that its annotation files exist."""
    ann_file = dataset.joined(dataset.settings.get('ann_file'))
    if ann_file is not None and dataset.reader == 'mmdet.datasets.xml_style':
        folder = Path(
            dataset.root, dataset.prefix('sub_data_root'), _setting(dataset, 'ann_subdir')
        )
        names = _read_list(dataset.path, ann_file)
        require_files(
            dataset.path, names, lambda name: folder / f'{name}.xml', 'annotation file', ann_file
        )


def check_masks(dataset: DatasetConfig, _: int | None = None) -> MaskSummary | None:
    """Check that mmseg's images and masks exist, and count the pixels of each class in masks.

    Logs how class numbers are changed.
    """
    _log_renumbering(dataset)
    if not dataset.loads_local_images:
        return None
    try:
        if dataset.reader == 'mmseg.datasets.basesegdataset':
            _check_pairs(dataset)
    except InputError as error:
        if Path(dataset.prefix('seg_map_path')).name == 'SegmentationClassAug':
            raise InputError(
                f'{error}; without the masks of SBD set VOC_TRAIN=train in the environment'
            ) from error
        raise
    return count_pixels(dataset)


def _check_pairs(dataset: DatasetConfig) -> None:
    path = dataset.path
    images, masks = (dataset.joined(dataset.prefix(key)) for key in ('img_path', 'seg_map_path'))
    for name, folder in (('img_path', images), ('seg_map_path', masks)):
        if folder is not None:
            require_folder(f'{path}.data_prefix.{name}', folder)
    if images is None:
        return
    ann_file = dataset.joined(dataset.settings.get('ann_file'))
    if ann_file is not None and not ann_file.is_dir():
        _read_list(path, ann_file)
    else:
        ann_file, ends = None, [_setting(dataset, f'{kind}_suffix') for kind in ('img', 'seg_map')]
        check_suffix(path, images, ends[0], masks, ends[1])
    kinds = {'img_path': 'image'}
    if masks is not None and not dataset.settings.get('test_mode'):
        kinds['seg_map_path'] = 'mask'
    for key, kind in kinds.items():
        require_files(path, dataset.samples or (), itemgetter(key), kind, ann_file)


def _setting(dataset: DatasetConfig, key: str) -> Any:
    """Return a setting, else the default of the first class that has the argument."""
    inits = (inspect.signature(base).parameters for base in inspect.getmro(dataset.kind))
    default = next(parameters[key].default for parameters in inits if key in parameters)
    return dataset.settings.get(key) or default


def _log_renumbering(dataset: DatasetConfig) -> None:
    own, classes = getattr(dataset.kind, 'METAINFO', {}).get('classes'), dataset.classes
    if own and classes is not None and tuple(own) != classes:
        new_names = [name for name in classes if name not in own]
        if new_names and dataset.module_of('get_label_map') == 'mmseg.datasets.basesegdataset':
            raise InputError(
                f'{dataset.path}.metainfo.classes: {dataset.kind.__name__} has no {few(new_names)}; if '
                f'these are classes of your own, set {dataset.path}.type=BaseSegDataset'
            )
        old, new = (
            ', '.join(f'{i} {c}' for i, c in enumerate(names[:3])) for names in (own, classes)
        )
        print_log(
            f'{dataset.path}: masks are read with the numbers of {dataset.kind.__name__} '
            f'({old}, ...) and renumbered to metainfo.classes ({new}, ...). '
            'If the masks already have the numbers of metainfo.classes, set type=BaseSegDataset.',
            'current',
        )


def check_packed(dataset: DatasetConfig, num_classes: int | None) -> Labels | None:
    """Check that a packed dataset can be opened, its lists, and its classes against the model's.

    If the index of tar shards is missing, it is built here.
    """
    folder = images_and_list(dataset)[0].expanduser()
    with_label = bool(dataset.settings.get('with_label', True))
    try:
        pack = open_pack(folder)
        images = pack.images(with_label)
        for name in spread(list(images), MAX_LOOKUPS) if isinstance(pack, LmdbPack) else ():
            pack.read(name)
        if not images:
            raise InputError(f"the dataset is empty: '{folder}' has no image")
        if with_label:
            greatest = max(images.values())[0]
            sizes = [num_classes, len(read_classes(folder) or ()) or None]
            limit = min(filter(None, sizes), default=greatest + 1)
            if greatest >= limit:
                raise InputError(
                    f"'{folder}' has an image of class {greatest}, but there are {limit} classes "
                    f'(model.head.num_classes, metainfo.classes, {CLASSES}); classes start at 0'
                )
    except InputError as error:
        raise InputError(f'{dataset.path}: {error}') from error
    except OSError as error:
        raise InputError(
            f"{dataset.path}: '{error.filename}', listed in {LABELS}, cannot be read: "
            f'{error.strerror}; pack the dataset again'
        ) from error
    return Labels(dataset.path, folder, {n for n, _ in images.values()}) if with_label else None


def _read_list(path: str, file: Path) -> list[str]:
    """Read the lines of a dataset's ``ann_file``."""
    lines = read_lines(file, f'{path}.ann_file: ')
    if lines is None:
        raise InputError(f"{path}.ann_file: '{file}' does not exist")
    if not lines:
        raise InputError(f"{path}: the dataset is empty: '{file}' lists no image")
    return lines


def require_files(
    path: str,
    items: Sequence[_T],
    file_of: Callable[[_T], str | Path],
    kind: str,
    ann_file: Path | None,
) -> None:
    """Check that files exist (of a long list, a part); InputError names the first missing one.

    Args:
        path: The dataset in the config.
        items: Names or samples, from the list ``ann_file``, if there is one.
        file_of: Gives the file of an item. To join a million paths takes 10 s.
        kind: What the files are, such as 'image'.
    """
    files = [file_of(item) for item in spread(items, MAX_LOOKUPS)]
    listed = f", which '{ann_file}' lists," if ann_file else ''
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        raise InputError(
            f"{path}: the {kind} '{missing[0]}'{listed} does not exist ({len(missing)} of {len(files)} "
            'checked files are missing)'
        )


def require_folder(key: str, folder: str | Path) -> None:
    """Raise an InputError that begins with ``key`` if a folder does not exist."""
    if not os.path.isdir(folder):
        raise InputError(f"{key}: '{folder}' is not a folder")
