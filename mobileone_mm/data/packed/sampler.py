"""Training order for slow storage: shard by shard, shuffled within a window."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ...errors import InputError
from ...registry import DATA_SAMPLERS
from .packs import TarPack

_PIECE = 8 << 20


@DATA_SAMPLERS.register_module()
class ShardSampler(Sampler):
    """Sample tar shards one after the other, for training.

    mmengine's ``DefaultSampler`` draws from all shards at once: the storage sees reads of 100 kB at
    random places of hundreds of GB. This sampler shuffles the shards in each epoch, splits the
    sequence of their images into one part for each process, and shuffles each part within windows.
    The first window has a random length. A batch comes from a few thousand neighbours: pack shuffled
    images. All else is as with ``DefaultSampler``: each image occurs once in an epoch, and the order
    depends on seed and epoch only, so that resuming is exact.

    Args:
        dataset: A ``PackedDataset`` of tar shards.
        shuffle: Must be True. mmengine gathers the results of an evaluation in the order of
            ``DefaultSampler``.
        seed: Seed of the order, the same in all processes; None draws one.
        round_up: Whether images of the start are repeated, so that processes have equally many.
        window: Number of images that are shuffled together; 1 keeps the order within the shards.
        read_ahead: Whether a thread reads the next window into the page cache, in pieces of 8 MB.
            The cache needs room for two windows (1 GB for 4096 images of ImageNet).
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
                f'ShardSampler: dataset: got {type(dataset).__name__} without tar shards; expected a '
                'mobileone_mm.PackedDataset of shards; use DefaultSampler for other datasets'
            )
        if not shuffle:
            raise InputError('ShardSampler: shuffle: got False; use DefaultSampler')
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise InputError(f'ShardSampler: window: got {window!r}; expected an integer from 1')
        self.dataset, self.window, self.round_up = dataset, window, round_up
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self._rows = dataset.pack_rows()
        self.read_ahead = read_ahead
        self._reader: threading.Thread | None = None
        by_row = np.argsort(self._rows, kind='stable')
        shard = pack.index.shard[self._rows[by_row]]
        self._shards = np.split(by_row, np.flatnonzero(np.diff(shard)) + 1)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        shuffled = torch.randperm(len(self._shards), generator=generator).tolist()
        sequence = np.concatenate([self._shards[number] for number in shuffled])
        part = np.take(sequence, np.arange(*self._bounds()), mode='wrap')
        first = int(torch.randint(1, self.window + 1, (), generator=generator))
        windows = np.split(part, range(first, len(part), self.window))
        for number, window in enumerate(windows):
            if self.read_ahead and number + 1 < max(2, len(windows)):
                near = windows[number + 1] if number else np.concatenate(windows[:2])
                work = self.dataset.pack, self._rows[near], self._reader
                self._reader = threading.Thread(target=fill_cache, args=work, daemon=True)
                self._reader.start()
            order = torch.randperm(len(window), generator=generator).numpy()
            yield from window[order].tolist()

    def __len__(self) -> int:
        return len(range(*self._bounds()))

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch."""
        self.epoch = epoch

    def _bounds(self) -> tuple[int, int]:
        count = len(self._rows)
        if self.round_up:
            size = math.ceil(count / self.world_size)
            return self.rank * size, (self.rank + 1) * size
        return self.rank * count // self.world_size, (self.rank + 1) * count // self.world_size


def fill_cache(pack: TarPack, rows: np.ndarray, earlier: threading.Thread | None) -> None:
    """Read the images of some rows into the page cache, shard by shard, after an earlier thread.

    ``posix_fadvise(WILLNEED)`` reads only the read-ahead size of the device, often 128 kB.
    """
    if earlier is not None:
        earlier.join()
    buffer = memoryview(bytearray(_PIECE))
    shards = pack.index.shard[rows]
    for shard in dict.fromkeys(shards.tolist()):
        part = pack.index.rows[rows[shards == shard]]
        position, end = int(part['offset'].min()), int((part['offset'] + part['size']).max())
        with suppress(OSError):  # the loader meets the same error and reports it
            file, count = pack.file(shard), 1
            while position < end and count:
                count = os.preadv(file.fileno(), [buffer[: end - position]], position)
                position += count
