"""Datasets as a config describes them: their class, their class list and their files."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os.path import expanduser
from pathlib import Path
from typing import Any

from ..config.explain import REFUSALS
from ..config.tree import class_of, datasets, mapping, takes_argument, walk
from .lists import read_class_list

# Heads whose num_classes is that of the dataset, and what contains them; not region proposal heads.
HEADS = {'roi_head', 'auxiliary_head', 'bbox_head', 'decode_head', 'head'}


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset of a config, without its wrappers: its dotted path, arguments and class."""

    path: str
    settings: Any  # the dict of the config itself
    kind: type

    @cached_property
    def bases(self) -> tuple[str, ...]:
        """Names of the class and of its base classes."""
        return tuple(base.__name__ for base in inspect.getmro(self.kind))

    @cached_property
    def class_list(self) -> tuple[str, Any] | None:
        """The path and the value of the class list in the config; None if it has none."""
        metainfo, older = mapping(self.settings.get('metainfo')), self.settings.get('classes')
        if metainfo.get('classes') is not None:
            return f'{self.path}.metainfo.classes', metainfo['classes']
        if older is not None:  # mmpretrain's older argument
            return f'{self.path}.classes', expanduser(older) if isinstance(older, str) else older
        return None

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The class list in force: that of the config, else that of the class, else None.

        A list that the hosts would read wrong is an InputError.
        """
        if self.class_list is not None:
            where, given = self.class_list
            # Labels of a classifier are numbers; detectors and segmentors look classes up by name.
            modules = [base.__module__ for base in inspect.getmro(self.kind)]
            by_number = any(name.startswith('mmpretrain.') for name in modules)
            return read_class_list(given, where, unique=not by_number)
        own = getattr(self.kind, 'METAINFO', {}).get('classes')
        return None if own is None else tuple(own)

    @property
    def root(self) -> str:
        """The data root; empty if it is not set."""
        return self.settings.get('data_root') or ''

    @property
    def reader(self) -> str | None:
        """The module of the method that lists the samples: a derived class may have its own."""
        return self.module_of('load_data_list')

    @property
    def has_coco_boxes(self) -> bool:
        """Whether mmdet's ``CocoDataset`` reads boxes; panoptic annotations have another format."""
        methods = 'load_data_list', 'parse_data_info'
        return {*map(self.module_of, methods)} == {'mmdet.datasets.coco'}

    def module_of(self, method: str) -> str | None:
        """Return the module of the class that has a method."""
        return getattr(getattr(self.kind, method, None), '__module__', None)

    @cached_property
    def samples(self) -> list[dict[str, Any]] | None:
        """The samples as the first transform gets them; None if the class refuses its arguments.

        The run reports such a refusal. The host lists all files: not for folders of ImageNet's size.
        """
        settings = {key: value for key, value in self.settings.items() if key[0] != '_'}
        settings.update(pipeline=[], lazy_init=False, serialize_data=False)
        del settings['type']
        try:
            built = self.kind(**settings)
        except REFUSALS:
            return None
        return built.data_list

    @property
    def lists_folders(self) -> bool:
        """Whether mmpretrain lists the images by their ``extensions``, without a list of names."""
        return (
            self.reader == 'mmpretrain.datasets.custom'
            and not self.settings.get('ann_file')
            and takes_argument(self.kind, 'extensions')
        )

    @property
    def is_local(self) -> bool:
        """Whether the dataset reads its annotations from a local disk."""
        return is_local(self.settings)

    @property
    def loads_local_images(self) -> bool:
        """Whether all loading transforms read from a local disk. Each has its own ``backend_args``."""
        return all(map(is_local, self.settings.get('pipeline') or ()))

    @property
    def turns_by_exif(self) -> bool:
        """Whether the loading transforms turn images by their EXIF orientation."""
        flags = (mapping(step).get('color_type') for step in self.settings.get('pipeline') or ())
        return not any(str(flag).endswith('ignore_orientation') for flag in flags)

    def joined(self, name: str | None) -> Path | None:
        """Return a path below the data root, as mmengine's datasets do; None for an empty name."""
        return Path(self.root, name) if name else None

    def prefix(self, key: str) -> str:
        """Return an entry of ``data_prefix``."""
        return (self.settings.get('data_prefix') or {}).get(key) or ''


def datasets_of(cfg: Mapping, loader: str) -> Iterator[DatasetConfig]:
    """Yield the datasets of a loader whose class is known. The default scope must be set."""
    for path, dataset in datasets(cfg, loader):
        # Building reports an unknown class.
        kind = class_of(dataset, dataset.get('_scope_'))
        if kind is not None:
            yield DatasetConfig(path, dataset, kind)


def head_sizes(model: Any) -> Iterator[tuple[str, int]]:
    """Yield the path and the value of ``num_classes`` of each head in a model's config."""
    for path, node in walk(model, 'model'):
        keys = [key for key in path.split('.')[1:] if not key.isdecimal()]
        if keys and set(keys) <= HEADS and node.get('num_classes') is not None:
            yield f'{path}.num_classes', node['num_classes']


def is_local(settings: Any) -> bool:
    """Return whether a dataset, transform or metric reads files from a local disk.

    An address chooses a back end without ``backend_args``.
    """
    node = mapping(settings)
    places = (str(node.get(key) or '') for key in ('data_root', 'ann_file'))
    backend = mapping(node.get('backend_args')).get('backend', 'local')
    return backend in ('local', 'disk') and not any('://' in place for place in places)
