"""Classification from tar shards or an LMDB, as a dataset of mmpretrain."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset

from ...errors import InputError
from ...registry import DATASETS
from .backend import address
from .packs import open_pack, read_classes


@DATASETS.register_module()
class PackedDataset(BaseDataset):
    """Images and classes of a packed dataset, see :mod:`mobileone_mm.data.packed`.

    It replaces ``ImageNet`` or ``CustomDataset`` in a config: only ``type`` changes. The samples
    are in the order of the source dataset (``labels.txt``), so one seed gives the same batches from
    folders, shards and LMDB. Without ``labels.txt`` they are in the order of their names.

    Args:
        data_root: Folder of the packed dataset, or its parent.
        split: Name of the folder below ``data_root``, such as ``train``.
        data_prefix: Another name for ``split``.
        with_label: Whether the images have classes.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``.

    Raises:
        InputError: The folder is not a packed dataset, an image has no class, or ``labels.txt``
            does not fit the shards.
    """

    def __init__(
        self,
        data_root: str = '',
        split: str = '',
        data_prefix: str = '',
        with_label: bool = True,
        **kwargs: Any,
    ) -> None:
        self.with_label = with_label
        kwargs.setdefault('ann_file', '')
        if kwargs['ann_file']:
            raise InputError(
                f"PackedDataset: ann_file: got '{kwargs['ann_file']}'; the packed dataset has the "
                "classes: remove ann_file, or set it to ''"
            )
        self.pack = open_pack(os.path.join(os.path.expanduser(data_root), data_prefix or split))
        super().__init__(data_root=data_root, data_prefix=address(self.pack.folder), **kwargs)

    def _join_prefix(self) -> None:
        """Leave the prefix as it is: it is an address."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the address, the class and the row in the pack of each image."""
        classes = read_classes(self.pack.folder)
        if classes is not None:
            self._metainfo.setdefault('classes', classes)
        table = list(self.pack.samples())
        places = self.pack.places(dict(table), self.with_label)
        samples = {}
        for row, (name, label) in enumerate(table):
            samples[name] = {'img_path': f'{self.img_prefix}{name}', 'pack_row': row}
            if self.with_label and label < 0:
                raise InputError(
                    f"'{self.pack.folder}': '{name}' has no class; pack the dataset with classes, or "
                    'set with_label=False'
                )
            if self.with_label:
                samples[name]['gt_label'] = label
        order = sorted(samples, key=_as_folders if places is None else places.__getitem__)
        return [samples[name] for name in order]

    def pack_rows(self) -> np.ndarray:
        """Return the row in the pack of each sample. Rows are in the order of the files."""
        rows = (self.get_data_info(index)['pack_row'] for index in range(len(self)))
        return np.fromiter(rows, np.int64, len(self))

    def extra_repr(self) -> list[str]:
        """Return the lines for ``repr``."""
        return [f'Packed dataset: \t{self.pack.folder}']


def _as_folders(name: str) -> tuple[str, str]:
    folder, slash, rest = name.partition('/')
    return (folder, rest) if slash else ('', name)
