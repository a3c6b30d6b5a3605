"""Classification from tar shards or an LMDB, with mmpretrain's dataset around them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from mmpretrain.datasets.base_dataset import BaseDataset

from ...errors import InputError
from ...registry import DATASETS
from .backend import address
from .listing import listed_places
from .packs import open_pack
from .tar_members import NO_LABEL


@DATASETS.register_module()
class PackedDataset(BaseDataset):
    """Images and classes of a packed dataset, see :mod:`mobileone_mm.data.packed`.

    It takes the place of ``ImageNet`` or ``CustomDataset`` in a config by one line, ``type=``, and
    has what mmpretrain's datasets have: length, index, ``indices``, ``classes``. Samples are in the
    order of the dataset that was packed, whatever their order in the shards, so that one seed gives
    the same batches from either; without its list (``labels.txt``) in the order of their names.

    Args:
        data_root: Folder of the packed dataset, or the one above it.
        split: Name of the folder below ``data_root``, such as ``train``.
        data_prefix: The same under its other name.
        with_label: Whether there are classes.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``.

    Raises:
        InputError: The folder is no packed dataset, images have no class, or ``labels.txt`` says
            something else than the shards.
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
                f"PackedDataset: ann_file: got '{kwargs['ann_file']}'; the classes are in the packed "
                "dataset, leave it out (or set it to '')"
            )
        folder = os.path.join(os.path.expanduser(data_root), data_prefix or split)
        self.pack = open_pack(folder)
        super().__init__(data_root=data_root, data_prefix=address(self.pack.folder), **kwargs)

    def _join_prefix(self) -> None:
        """Nothing to join: the prefix is an address already."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """Address, class and row in the pack of each image, by name.

        Raises:
            InputError: An image has no class.
        """
        if self.pack.classes is not None:
            self._metainfo.setdefault('classes', self.pack.classes)
        samples = []
        for row, (name, label) in enumerate(self.pack.samples()):
            sample = {'img_path': f'{self.img_prefix}{name}', 'pack_row': row}
            if self.with_label:
                if label < 0:
                    raise InputError(
                        f"'{self.pack.folder}': '{name}' has no class; pack it with classes, or set "
                        'with_label=False'
                    )
                sample['gt_label'] = label
            samples.append(sample)
        return self._in_order(samples)

    def _in_order(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        start = len(self.img_prefix)
        names = [str(sample['img_path'])[start:] for sample in samples]
        labels = {
            name: sample.get('gt_label', NO_LABEL)
            for name, sample in zip(names, samples, strict=True)
        }
        places = listed_places(self.pack, labels, self.with_label)
        if places is None:
            order = sorted(range(len(names)), key=lambda row: _as_folders(names[row]))
        else:
            order = sorted(range(len(names)), key=lambda row: places[names[row]])
        return [samples[row] for row in order]

    def pack_rows(self) -> np.ndarray:
        """Row in the pack of each sample; rows are in the order of the images on the disk."""
        rows = (self.get_data_info(index)['pack_row'] for index in range(len(self)))
        return np.fromiter(rows, np.int64, len(self))

    def extra_repr(self) -> list[str]:
        """Lines for ``repr``."""
        return [f'Packed dataset: \t{self.pack.folder}']


def _as_folders(name: str) -> tuple[str, str]:
    folder, slash, rest = name.partition('/')
    return (folder, rest) if slash else ('', name)
