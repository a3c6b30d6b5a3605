"""Check mmseg's pairs of image and mask."""

from __future__ import annotations

import inspect
from pathlib import Path

from mmengine.logging import print_log

from ...errors import InputError
from ..datasets import DatasetConfig
from .listed import read_list, require_files


def check_masks(dataset: DatasetConfig, _: int | None = None) -> None:
    """Check that images and masks exist, and log how their class numbers are changed."""
    _log_renumbering(dataset)
    try:
        if dataset.loads_local_images:
            _check_pairs(dataset)
    except InputError as error:
        if Path(dataset.prefix('seg_map_path')).name == 'SegmentationClassAug':
            raise InputError(
                f'{error}; without the masks of SBD set VOC_TRAIN=train in the environment'
            ) from error
        raise


def _check_pairs(dataset: DatasetConfig) -> None:
    path = dataset.path
    images, masks = (dataset.joined(dataset.prefix(key)) for key in ('img_path', 'seg_map_path'))
    for name, folder in (('img_path', images), ('seg_map_path', masks)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{path}.data_prefix.{name}: '{folder}' is not a folder")
    if images is None:
        return
    suffix = _suffix(dataset, 'img_suffix')
    ann_file = dataset.joined(dataset.settings.get('ann_file'))
    if ann_file is not None and not ann_file.is_dir():
        names = [line.strip() for line in read_list(path, ann_file)]
        where = f"'{ann_file}' lists the"
    else:
        files = sorted(images.rglob(f'*{suffix}'))
        names = [str(file.relative_to(images))[: -len(suffix)] for file in files]
        where = 'the'
        if not names:
            raise InputError(f"{path}: the dataset is empty: no *{suffix} below '{images}'")
    require_files(path, [images / f'{name}{suffix}' for name in names], f'{where} image')
    if masks is not None and not dataset.settings.get('test_mode'):
        mask_suffix = _suffix(dataset, 'seg_map_suffix')
        require_files(path, [masks / f'{name}{mask_suffix}' for name in names], f'{where} mask')


def _suffix(dataset: DatasetConfig, key: str) -> str:
    """Return a suffix from the settings, else the default of the first class that has the argument."""
    if dataset.settings.get(key):
        return str(dataset.settings[key])
    for base in inspect.getmro(dataset.kind):
        init = vars(base).get('__init__')
        parameters = inspect.signature(init).parameters if inspect.isfunction(init) else {}
        if key in parameters:
            return str(parameters[key].default)
    return ''


def _log_renumbering(dataset: DatasetConfig) -> None:
    own, classes = getattr(dataset.kind, 'METAINFO', {}).get('classes'), dataset.classes
    if own and classes is not None and tuple(own) != classes:
        old, new = (
            ', '.join(f'{i} {c}' for i, c in enumerate(names[:3])) for names in (own, classes)
        )
        print_log(
            f'{dataset.path}: masks are read with the numbers of {dataset.kind.__name__} '
            f'({old}, ...) and renumbered to metainfo.classes ({new}, ...). '
            'If the masks already have the numbers of metainfo.classes, set type=BaseSegDataset.',
            'current',
        )
