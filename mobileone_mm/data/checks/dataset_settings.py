"""Check the types of a dataset's settings; the hosts end in a traceback, or ignore a mistyped key."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

from ...config.spelling import did_you_mean
from ...config.tree import mapping
from ...errors import InputError
from ..datasets import DatasetConfig

_HOSTS = ('mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'mobileone_mm')
_FLAG: tuple[tuple[type, ...], str] = ((bool,), 'True or False')
_PATH: tuple[tuple[type, ...], str] = ((str, PathLike), 'a path')
_PIXELS: tuple[tuple[type, ...], str] = ((int, float), 'a number of pixels')
_FILTERS = {'filter_empty_gt': _FLAG, 'min_size': _PIXELS, 'bbox_min_size': _PIXELS}
#: types of settings, and what is allowed; so is None, except for data_prefix
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    'ann_file': _PATH,
    'data_root': _PATH,
    'data_prefix': ((Mapping,), 'a dict of folders'),
    'filter_cfg': ((Mapping,), 'a dict such as dict(filter_empty_gt=True, min_size=32)'),
    **{f'filter_cfg.{key}': allowed for key, allowed in _FILTERS.items()},
    'indices': ((int, list, tuple), 'an integer or a list of integers'),
    'pipeline': ((list, tuple), 'a list of transforms'),
    'test_mode': _FLAG,
    'lazy_init': _FLAG,
    'serialize_data': _FLAG,
}
#: what datasets cannot do without, by the module of the method that lists their samples
_NEEDS_LIST = {
    'mmdet.datasets.coco': "a file in COCO's format",
    'mmdet.datasets.xml_style': 'a file with the names of the images',
}
_DEFAULT_PREFIX = {'img_path': ''}
_NEEDS_PREFIX = {
    'mmdet.datasets.coco': 'img',
    'mmseg.datasets.basesegdataset': 'img_path',
}


def check_settings(dataset: DatasetConfig) -> None:
    """Check the settings that a dataset has from its host. A class of the user may take other types.

    Raises:
        InputError: Names the setting, its value and what is allowed.
    """
    init = getattr(dataset.kind, '__init__', None)
    if getattr(init, '__module__', '').partition('.')[0] not in _HOSTS:
        return
    settings = dataset.settings
    for key, (kinds, allowed) in _TYPES.items():
        name, _, inner = key.partition('.')
        value = mapping(settings.get(name)).get(inner) if inner else settings.get(name)
        if key == 'data_prefix' and isinstance(value, str) and _takes_string(dataset):
            continue
        if value is None and (key != 'data_prefix' or key not in settings):
            continue
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if not fits:
            raise _refusal(dataset, key, value, allowed)
    for key, value in mapping(settings.get('data_prefix')).items():
        if not isinstance(value, (str, type(None))):
            raise _refusal(dataset, f'data_prefix.{key}', value, 'a folder')
    _check_filters(dataset)
    needed = _NEEDS_LIST.get(dataset.reader or '')
    if needed and not settings.get('ann_file'):
        raise _refusal(dataset, 'ann_file', settings.get('ann_file'), needed)
    prefix = settings.get('data_prefix', _DEFAULT_PREFIX)
    folder = _NEEDS_PREFIX.get(dataset.reader or '')
    if folder and folder not in prefix:
        needed = f"a dict with the folder of the images as '{folder}'"
        raise _refusal(dataset, 'data_prefix', dict(prefix), needed)
    given = settings.get('indices')
    if given == 0 or (isinstance(given, (list, tuple)) and not _are_integers(given)):
        raise _refusal(dataset, 'indices', given, 'a number of images, or a list of integers')


def check_indices(dataset: DatasetConfig) -> None:
    """Check that a list of ``indices`` fits the samples that the dataset has without it.

    The host lists the samples for that.
    """
    given = dataset.settings.get('indices')
    if not isinstance(given, (list, tuple)):
        return
    samples = replace(dataset, settings={**dataset.settings, 'indices': None}).samples
    if samples is None:
        return
    count = len(samples)
    outside = [index for index in given if not -count <= index < count]
    if outside:
        raise InputError(
            f'{dataset.path}.indices: got {outside[0]}; expected 0 to {count - 1}, as the dataset has '
            f'{count} images'
        )


def _check_filters(dataset: DatasetConfig) -> None:
    """Check the keys of ``filter_cfg``, where a method of mmdet reads them."""
    method = getattr(dataset.kind, 'filter_data', None)
    if getattr(method, '__module__', '').partition('.')[0] == 'mmdet':
        for key in mapping(dataset.settings.get('filter_cfg')):
            if key not in _FILTERS:
                raise InputError(
                    f"{dataset.path}.filter_cfg: nothing reads '{key}'{did_you_mean(key, _FILTERS)}"
                )


def _takes_string(dataset: DatasetConfig) -> bool:
    return any(base.__module__.startswith('mmpretrain.') for base in dataset.kind.__mro__)


def _are_integers(values: Any) -> bool:
    return len(values) > 0 and all(type(value) is int for value in values)


def _refusal(dataset: DatasetConfig, key: str, value: Any, allowed: str) -> InputError:
    return InputError(f'{dataset.path}.{key}: got {value!r:.60}; expected {allowed}')
