"""The order of training that a storage likes: shard by shard, shuffled within a window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ...errors import InputError
from ...registry import DATA_SAMPLERS
from .packs import TarPack
from .read_ahead import ReadAhead


@DATA_SAMPLERS.register_module()
class ShardSampler(Sampler):
    """Goes through tar shards one after the other, for training.

    mmengine's ``DefaultSampler`` draws from all shards at once, so that a storage sees reads of
    100 kB at random places of hundreds of GB. Here each epoch

    1. shuffles the shards,
    2. cuts the row of all their images into one part for each process,
    3. shuffles each part within windows of ``window`` neighbours; where the windows begin is drawn
       anew in each epoch.

    So a batch comes from a few thousand neighbours, and neighbours must not be alike:
    ``tools/dataset_converters/pack_dataset.py`` shuffles what it packs. Everything else is as with ``DefaultSampler``:
    each image once an epoch, the same number for each process, the order a function of seed and
    epoch alone, which a resumed run knows.

    Args:
        dataset: A ``PackedDataset`` of tar shards.
        shuffle: Must be True; an evaluation goes through its images in order with
            ``DefaultSampler``, which mmengine's gathering of results relies on.
        seed: Seed of the order, the same in all processes; None draws one.
        round_up: Whether some images of the start are repeated at the end, so that all processes
            have equally many.
        window: Images that are shuffled together; 1 keeps the order within the shards.
        read_ahead: Whether a thread reads the next window from start to end, in pieces of 8 MB,
            while images of this one are taken: a slow storage then sees one sequential reader a
            process, and the workers find the bytes in the page cache. It needs room there for two
            windows a process (1 GB for 4096 images of ImageNet).

    Raises:
        InputError: The dataset has no tar shards, or an argument is out of range.
    """

    def __init__(
        self,
        dataset: Any,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        window: int = 4096,
        read_ahead: bool = False,
    ) -> None:
        pack = getattr(dataset, 'pack', None)
        if not isinstance(pack, TarPack):
            raise InputError(
                f'ShardSampler: the dataset is {type(dataset).__name__} without tar shards; it is for '
                'mobileone_mm.PackedDataset of shards, others take DefaultSampler'
            )
        if not shuffle:
            raise InputError('ShardSampler: shuffle=False: use DefaultSampler, it keeps the order')
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise InputError(f'ShardSampler: window: got {window!r}; an integer from 1 is needed')
        self.dataset, self.window, self.round_up = dataset, window, round_up
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self._pack = pack
        self._rows = dataset.pack_rows()
        self._read_ahead = ReadAhead(pack) if read_ahead else None
        # The samples by row, and where in this order each shard that has any begins.
        self._by_row = np.argsort(self._rows, kind='stable')
        self._shards = pack.index.shard[self._rows[self._by_row]]

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        part = self._part(self._sequence(generator))
        windows = self._windows(part, generator)
        for number, window in enumerate(windows):
            for near in windows[number + 1 : number + 2] if number else windows[:2]:
                if self._read_ahead is not None:
                    self._read_ahead.want(self._rows[near])
            order = torch.randperm(len(window), generator=generator).numpy()
            yield from window[order].tolist()

    def __len__(self) -> int:
        """The number of samples of this process."""
        first, last = self._bounds()
        return last - first

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch comes next; the order depends on it."""
        self.epoch = epoch

    def _sequence(self, generator: torch.Generator) -> np.ndarray:
        """All samples, shard by shard in a random order of the shards."""
        starts = np.flatnonzero(np.diff(self._shards, prepend=-1))
        shards = np.split(self._by_row, starts[1:])
        return np.concatenate(
            [shards[number] for number in torch.randperm(len(shards), generator=generator).tolist()]
        )

    def _bounds(self) -> tuple[int, int]:
        count = len(self._rows)
        if self.round_up:
            size = math.ceil(count / self.world_size)
            return self.rank * size, (self.rank + 1) * size
        return self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size

    def _part(self, sequence: np.ndarray) -> np.ndarray:
        first, last = self._bounds()
        return np.take(sequence, np.arange(first, last), mode='wrap')

    def _windows(self, part: np.ndarray, generator: torch.Generator) -> list[np.ndarray]:
        first = int(torch.randint(1, self.window + 1, (), generator=generator))
        cuts = range(first, len(part), self.window)
        return np.split(part, cuts) if len(part) else []
