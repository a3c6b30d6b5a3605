"""Classification from tar shards or an LMDB, as a dataset of mmpretrain."""

import os
from typing import Any

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset

from ...errors import InputError
from ...registry import DATASETS
from .packs import INSIDE, PREFIX, open_pack, read_classes


@DATASETS.register_module()
class PackedDataset(BaseDataset):
    """Images and classes of a packed dataset, see :mod:`mobileone_mm.data.packed`.

    It replaces ``ImageNet`` or ``CustomDataset`` in a config: only ``type`` changes. The samples are
    in the order of ``labels.txt``, which is that of the packed dataset, else of their names. One seed
    gives the same batches from folders, shards and LMDB.

    Args:
        data_root: Folder of the packed dataset, or its parent.
        split: Name of the folder below ``data_root``, such as ``train``.
        data_prefix: Another name for ``split``.
        with_label: Whether the images have classes.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``.
    """

    def __init__(
        self,
        data_root: str = '',
        split: str = '',
        data_prefix: str = '',
        with_label: bool = True,
        ann_file: str = '',
        **kwargs: Any,
    ) -> None:
        self.with_label = with_label
        if ann_file:
            raise InputError(
                f"PackedDataset: ann_file: got '{ann_file}'; the packed dataset has the "
                "classes: remove ann_file, or set it to ''"
            )
        self.pack = open_pack(os.path.join(os.path.expanduser(data_root), data_prefix or split))
        prefix = f'{PREFIX}{self.pack.folder}{INSIDE}'
        super().__init__(ann_file, data_root=data_root, data_prefix=prefix, **kwargs)

    def _join_prefix(self) -> None:
        """Leave the prefix as it is: it is an address."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """List address, row in the pack and class of each image; errors are those of ``images``."""
        classes = read_classes(self.pack.folder)
        if classes is not None:
            self._metainfo.setdefault('classes', classes)
        samples = []
        for name, (label, row) in self.pack.images(self.with_label).items():
            samples.append({'img_path': f'{self.img_prefix}{name}', 'pack_row': row})
            if self.with_label:
                samples[-1]['gt_label'] = label
        return samples

    def pack_rows(self) -> np.ndarray:
        """Return the row of each sample in the order of the files."""
        rows = (self.get_data_info(index)['pack_row'] for index in range(len(self)))
        return np.fromiter(rows, np.int64, len(self))
