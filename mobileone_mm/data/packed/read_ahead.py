"""Reading the shards of the next images from start to end, into the page cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np

from .packs import TarPack

_PIECE = 8 << 20


class ReadAhead:
    """A thread that reads parts of tar shards and throws the bytes away; the kernel keeps them.

    The kernel's own call for this, ``posix_fadvise(WILLNEED)``, reads no more at a time than a
    device's read-ahead size, 128 kB as a rule, and says nothing about the rest.

    Args:
        pack: The shards.
    """

    def __init__(self, pack: TarPack) -> None:
        self.pack = pack
        self._wanted: SimpleQueue[np.ndarray] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def want(self, rows: np.ndarray) -> None:
        """Read the images of some rows, in the background, after those wanted before."""
        self._wanted.put(rows)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name='read-ahead', daemon=True)
            self._thread.start()

    def ranges(self, rows: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """Shard, first byte and end of what some rows cover, shard by shard."""
        index = self.pack.index
        shards = index.shard[rows]
        for shard in dict.fromkeys(shards.tolist()):
            of_shard = rows[shards == shard]
            ends = index.offset[of_shard] + index.size[of_shard]
            yield shard, int(index.offset[of_shard].min()), int(ends.max())

    def _work(self) -> None:
        buffer = bytearray(_PIECE)
        while True:
            for shard, first, end in self.ranges(self._wanted.get()):
                # A handle of its own: those of the pack may be closed by another thread.
                try:
                    with open(self.pack.folder / self.pack.index.shards[shard][0], 'rb') as file:
                        _read(file, first, end, buffer)
                except OSError:
                    continue  # the loader meets the same fault and reports it

    def __getstate__(self) -> dict[str, Any]:
        return {'pack': self.pack}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['pack'])  # type: ignore[misc]


def _read(file: Any, first: int, end: int, buffer: bytearray) -> None:
    while first < end:
        view = memoryview(buffer)[: min(_PIECE, end - first)]
        count = os.preadv(file.fileno(), [view], first)
        if count == 0:
            return
        first += count
