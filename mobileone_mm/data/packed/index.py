"""The index of a folder of tar shards: where each image lies, and of which class it is.

It is made once, by reading the headers of all shards, and kept beside them as ``index.npz``. Sizes
and modification times of the shards are kept with it: a shard that has changed is read again, the
others are not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from ...errors import InputError
from ...files import atomic_write
from .tar_members import Sample, read_samples

FILE = 'index.npz'
_VERSION = 1
_COLUMNS = {
    'shard': np.int32,
    'offset': np.int64,
    'size': np.int64,
    'label': np.int64,
    'digest': np.uint64,
    'name_end': np.int64,
}


@dataclass(frozen=True)
class ShardIndex:
    """The samples of several shards, in the order of the shards and within them.

    Attributes:
        shards: Name, size in bytes and modification time in nanoseconds of each shard.
        shard: Number of the shard, by sample.
        offset: First byte of the image in its shard.
        size: Bytes of the image.
        label: Class, -1 without one.
        digest: 64-bit checksum of the name.
        name_end: End of the name in ``names``.
        names: All names, UTF-8, one after the other.
    """

    shards: tuple[tuple[str, int, int], ...]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    digest: np.ndarray
    name_end: np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, row: int) -> str:
        """Name of a sample, as its tar file has it."""
        start = int(self.name_end[row - 1]) if row else 0
        return self.names[start : int(self.name_end[row])].tobytes().decode()

    def all_names(self) -> list[str]:
        """Names of all samples."""
        blob, start, found = self.names.tobytes(), 0, []
        for end in self.name_end.tolist():
            found.append(blob[start:end].decode())
            start = end
        return found


def open_index(folder: Path) -> ShardIndex:
    """The index of the shards in a folder: the stored one if it is true, else a new one.

    A new one is stored; where the folder cannot be written, each process makes its own.

    Raises:
        InputError: There is no shard, or one cannot be read.
    """
    shards = _listed(folder)
    stored = _load(folder / FILE)
    if stored is not None and stored.shards == shards:
        return stored
    known = {shard: number for number, shard in enumerate(stored.shards)} if stored else {}
    fresh = [shard for shard in shards if shard not in known]
    if fresh:
        print_log(f'Reading the headers of {len(fresh)} shards for the index.', 'current')
    parts = []
    for number, shard in enumerate(shards):
        if stored is not None and shard in known:
            parts.append(_rows(stored, known[shard], number))
        else:
            parts.append(_table(read_samples(folder / shard[0]), number))
    index = _joined(shards, parts)
    try:
        atomic_write(folder / FILE, lambda file: _save(index, file))
    except InputError as error:
        print_log(
            f'{error}; the index will be made again by each process', 'current', logging.WARNING
        )
    return index


def digest(name: str) -> int:
    """The 64-bit checksum by which a name is looked up."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), 'little')


def _listed(folder: Path) -> tuple[tuple[str, int, int], ...]:
    shards = []
    for path in sorted(folder.glob('*.tar')):
        status = path.stat()
        shards.append((path.name, status.st_size, status.st_mtime_ns))
    if not shards:
        raise InputError(
            f"'{folder}' has no *.tar shards; tools/dataset_converters/pack_dataset.py writes some"
        )
    return tuple(shards)


def _table(samples: Iterable[Sample], shard: int) -> dict[str, np.ndarray]:
    rows = list(samples)
    names = [row.name.encode() for row in rows]
    columns = {
        'shard': [shard] * len(rows),
        'offset': [row.offset for row in rows],
        'size': [row.size for row in rows],
        'label': [row.label for row in rows],
        'digest': [digest(row.name) for row in rows],
        'name_end': np.cumsum([len(name) for name in names], dtype=np.int64),
    }
    table = {key: np.asarray(columns[key], kind) for key, kind in _COLUMNS.items()}
    return {**table, 'names': np.frombuffer(b''.join(names), np.uint8)}


def _rows(index: ShardIndex, old: int, new: int) -> dict[str, np.ndarray]:
    """The rows of one shard, which may have got another number."""
    first, last = np.searchsorted(index.shard, [old, old + 1])
    table = {key: getattr(index, key)[first:last] for key in _COLUMNS}
    start = int(index.name_end[first - 1]) if first else 0
    end = int(index.name_end[last - 1]) if last else 0
    table['shard'] = np.full(last - first, new, np.int32)
    table['name_end'] = table['name_end'] - start
    return {**table, 'names': index.names[start:end]}


def _joined(
    shards: tuple[tuple[str, int, int], ...], parts: Sequence[dict[str, np.ndarray]]
) -> ShardIndex:
    start = 0
    for part in parts:
        part['name_end'] = part['name_end'] + start
        start += len(part['names'])
    columns = {key: np.concatenate([part[key] for part in parts]) for key in (*_COLUMNS, 'names')}
    return ShardIndex(shards=shards, **columns)


def _save(index: ShardIndex, file: object) -> None:
    head = json.dumps({'version': _VERSION, 'shards': index.shards}).encode()
    columns = {key: getattr(index, key) for key in (*_COLUMNS, 'names')}
    np.savez(file, head=np.frombuffer(head, np.uint8), **columns)  # type: ignore[arg-type]


def _load(path: Path) -> ShardIndex | None:
    """A stored index; None where there is none, or one that is damaged or of another version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(file['head'].tobytes())
            columns = {key: np.asarray(file[key]) for key in (*_COLUMNS, 'names')}
        shards = tuple((str(name), int(size), int(time)) for name, size, time in head['shards'])
        index = ShardIndex(shards=shards, **columns)
        return index if head['version'] == _VERSION and _is_sound(index) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _is_sound(index: ShardIndex) -> bool:
    """Whether every image lies within its shard and every name within the names."""
    for key, kind in _COLUMNS.items():
        column = getattr(index, key)
        if column.dtype != kind or column.shape != index.shard.shape:
            return False
    if len(index) == 0:
        return len(index.names) == 0
    sizes = np.array([size for _, size, _ in index.shards], np.int64)
    return bool(
        index.shard[0] >= 0
        and index.shard[-1] < len(sizes)
        and (np.diff(index.shard) >= 0).all()
        and (np.diff(index.name_end, prepend=0) >= 0).all()
        and index.name_end[-1] == len(index.names)
        and index.names.dtype == np.uint8
        and (index.offset >= 0).all()
        and (index.size >= 0).all()
        and (index.offset + index.size <= sizes[index.shard]).all()
    )
