"""Opening a packed dataset and reading images from it, by name."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .index import ShardIndex, digest, open_index
from .tar_members import NO_LABEL, member_name

CLASSES = 'classes.txt'
LABELS = 'labels.txt'
LMDB_FILE = 'data.mdb'
# Processes may open 1024 files as a rule, and a dataset may have more shards.
_MOST_OPEN = 128


class Pack(ABC):
    """A packed dataset that is open for reading; :func:`open_pack` makes it.

    It can be handed to other processes by pickling or forking: handles are opened by the process
    that reads.

    Args:
        folder: Absolute path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pack, (str(self.folder),)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of an image.

        Raises:
            FileNotFoundError: There is none of that name.
            OSError: It cannot be read.
        """

    @abstractmethod
    def samples(self) -> Iterator[tuple[str, int]]:
        """Name and class of each image, -1 without a class, in the order of the files."""

    @abstractmethod
    def close(self) -> None:
        """Give open files back; the next reading opens them again."""

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, if ``classes.txt`` names them.

        Raises:
            InputError: The file cannot be read.
        """
        return read_classes(self.folder)

    def listing(self) -> Iterator[tuple[str, int]] | None:
        """Name and class of each image in the order of the dataset that was packed.

        That is what ``labels.txt`` has, in lines ``NAME LABEL``; None without that file.

        Raises:
            InputError: The file is malformed.
        """
        lines = _lines(self.folder / LABELS)
        return None if lines is None else map(self._listed, enumerate(lines, 1))

    def _listed(self, numbered: tuple[int, str]) -> tuple[str, int]:
        row, line = numbered
        name, _, label = line.rpartition(' ')
        if not name or not label.removeprefix('-').isdigit() or int(label) < NO_LABEL:
            raise InputError(
                f"'{self.folder / LABELS}', line {row}: got '{line[:60]}'; NAME LABEL is needed"
            )
        return name, int(label)

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, 'no image of that name', f'{self.folder}!/{name}')


class TarPack(Pack):
    """Tar shards, read by position: one system call an image, without a shared file position."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.index: ShardIndex = open_index(folder)
        self._order = np.argsort(self.index.digest, kind='stable')
        self._sorted = self.index.digest[self._order]
        self._stems = [Path(name).stem for name, _, _ in self.index.shards]
        # Names that start anew in each shard are told apart by the shard's.
        self._ambiguous = bool((self._sorted[1:] == self._sorted[:-1]).any())
        self._handles: OrderedDict[int, int] = OrderedDict()

    def samples(self) -> Iterator[tuple[str, int]]:
        names = self.index.all_names()
        if self._ambiguous:
            shards = self.index.shard.tolist()
            names = [
                f'{self._stems[shard]}/{name}' for shard, name in zip(shards, names, strict=True)
            ]
        yield from zip(names, self.index.label.tolist(), strict=True)

    def read(self, name: str) -> bytes:
        row = self._row(name)
        offset, left = int(self.index.offset[row]), int(self.index.size[row])
        parts = []
        while left:
            part = os.pread(self.handle(int(self.index.shard[row])), left, offset)
            if not part:
                raise OSError(errno.EIO, 'the shard is shorter than its index says', name)
            parts.append(part)
            offset, left = offset + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else b''.join(parts)

    def handle(self, shard: int) -> int:
        """File descriptor of a shard, open for reading."""
        found = self._handles.pop(shard, None)
        if found is None:
            if len(self._handles) >= _MOST_OPEN:
                os.close(self._handles.popitem(last=False)[1])
            found = os.open(self.folder / self.index.shards[shard][0], os.O_RDONLY | os.O_CLOEXEC)
        self._handles[shard] = found
        return found

    def close(self) -> None:
        while self._handles:
            os.close(self._handles.popitem()[1])

    def _row(self, name: str) -> int:
        row = self._find(name)
        if row is None:
            row = self._find(member_name(name))
        if row is None:
            raise self._missing(name)
        return row

    def _find(self, name: str) -> int | None:
        stem, _, inner = name.partition('/') if self._ambiguous else ('', '', name)
        mark = np.uint64(digest(inner))
        place = int(self._sorted.searchsorted(mark))
        while place < len(self._sorted) and self._sorted[place] == mark:
            row = int(self._order[place])
            stems_agree = not self._ambiguous or self._stems[self.index.shard[row]] == stem
            if stems_agree and self.index.name(row) == inner:
                return row
            place += 1
        return None


class LmdbPack(Pack):
    """An LMDB: keys are names, values the bytes of the files; ``labels.txt`` has the classes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._environment: Any = None

    def samples(self) -> Iterator[tuple[str, int]]:
        """Name and class of each image, in the order of ``labels.txt``.

        Raises:
            InputError: That file is missing or malformed.
        """
        listing = self.listing()
        if listing is None:
            raise InputError(
                f"'{self.folder}' has no {LABELS}, a line NAME LABEL for each image (the label "
                '-1 without a class); tools/dataset_converters/pack_dataset.py writes it'
            )
        yield from listing

    def read(self, name: str) -> bytes:
        with self._transaction(name) as transaction:
            found = transaction.get(name.encode())
        if found is None:
            raise self._missing(name)
        return found

    def require(self, name: str) -> None:
        """Look an image up without reading it; errors are those of :meth:`read`."""
        with self._transaction(name) as transaction:
            found = transaction.cursor().set_key(name.encode())
        if not found:
            raise self._missing(name)

    @contextmanager
    def _transaction(self, name: str) -> Iterator[Any]:
        import lmdb

        try:
            if self._environment is None:
                self._environment = lmdb.open(
                    str(self.folder), readonly=True, lock=False, readahead=False, meminit=False
                )
            with self._environment.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise OSError(errno.EIO, f'LMDB: {error}', f'{self.folder}!/{name}') from error

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None


_open: dict[str, Pack] = {}


def open_pack(folder: str | os.PathLike[str]) -> Pack:
    """Open a packed dataset, once in a process.

    Args:
        folder: Folder of tar shards, or an LMDB.

    Raises:
        InputError: It is neither, or cannot be read; or the package ``lmdb`` is missing.
    """
    path = os.path.realpath(os.path.expanduser(folder))
    if path not in _open:
        _open[path] = read_pack(Path(path))
    return _open[path]


def read_pack(path: Path) -> Pack:
    """Open a packed dataset anew, by its absolute path; see :func:`open_pack`."""
    if not path.is_dir():
        raise InputError(f"'{path}' is no folder; give one of tar shards, or an LMDB")
    if not (path / LMDB_FILE).exists():
        try:
            return TarPack(path)
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    try:
        import lmdb  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"'{path}' is an LMDB, which the package lmdb reads: pip install lmdb"
        ) from error
    return LmdbPack(path)


def read_classes(folder: Path) -> tuple[str, ...] | None:
    """Names of the classes of a packed dataset, which is not opened; None without ``classes.txt``.

    Raises:
        InputError: The file cannot be read.
    """
    lines = _lines(folder / CLASSES)
    return None if lines is None else tuple(lines)


def _close_environments() -> None:
    for pack in _open.values():
        if isinstance(pack, LmdbPack):
            pack.close()


# LMDB allows no use of an environment behind a fork, and none to be opened twice in one process.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_close_environments)


def _lines(path: Path) -> list[str] | None:
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is no readable list: {error}") from error
    return [line for line in text.split('\n') if line]
