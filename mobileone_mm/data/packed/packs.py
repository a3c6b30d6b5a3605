"""Open packed datasets, and read images by name; also through mmengine's file functions."""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache, lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import BaseStorageBackend, register_backend

from ...errors import InputError
from ..lists import read_lines
from .shards import NO_LABEL, member_name, open_index

CLASSES = 'classes.txt'
LABELS = 'labels.txt'
LMDB_FILE = 'data.mdb'
PREFIX = 'packed://'
INSIDE = '!/'
# A process may open 1024 files by default, and a dataset may have more shards.
_MAX_OPEN = 128


class Pack(ABC):
    """A packed dataset that is open for reading, see :func:`open_pack`; ``folder`` is absolute.

    It can be pickled and used after a fork: each process opens its own files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return open_pack, (str(self.folder),)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the bytes of an image; FileNotFoundError if no image has that name."""

    @abstractmethod
    def samples(self) -> Iterator[tuple[str, int]]:
        """Yield name and class (-1 for none) of each image, in the order of the files."""

    def images(self, with_label: bool = True) -> dict[str, tuple[int, int]]:
        """Map names to class and row in the files, in the order of ``labels.txt`` or of the names."""
        found = {name: (label, row) for row, (name, label) in enumerate(self.samples())}
        listed = self._listing()
        if listed is None:  # in mmpretrain's order of class folders
            names = sorted(found, key=lambda n: n.split('/', 1) if '/' in n else ['', n])
            listed = dict.fromkeys(names, NO_LABEL)
        where, advice = f"'{self.folder / LABELS}'", 'remove it, or pack the dataset again'
        odd = min(listed.keys() ^ found.keys(), default=None)
        if odd is not None:
            fault = 'not listed' if odd in found else 'not in the shards'
            raise InputError(f"{where} does not fit the shards: '{odd}' is {fault}; {advice}")
        for name, label in listed.items() if with_label else ():
            packed = found[name][0]
            if packed == NO_LABEL:
                raise InputError(
                    f"'{self.folder}': '{name}' has no class; pack the dataset with classes, or set "
                    'with_label=False'
                )
            if label not in (NO_LABEL, packed):
                raise InputError(
                    f"{where}: '{name}' has class {label}, but its .cls or .json member in the shards "
                    f'has {packed}; the shards define the classes and this file the order: {advice}'
                )
        return {name: found[name] for name in listed}

    def _listing(self) -> dict[str, int] | None:
        """Return the classes by name in ``labels.txt``, in the order of the source dataset."""
        lines = read_lines(self.folder / LABELS)
        found = {}
        for number, line in enumerate(lines or (), 1):
            name, _, label = line.rpartition(' ')
            if not name or not label.removeprefix('-').isdecimal() or int(label) < NO_LABEL:
                raise InputError(
                    f"'{self.folder / LABELS}', line {number}: got '{line[:60]}'; expected NAME LABEL"
                )
            found[name] = int(label)
        return None if lines is None else found

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, 'no image of that name', f'{self.folder}!/{name}')


class TarPack(Pack):
    """Tar shards. One ``pread`` reads an image, so threads and forks need no file position."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.index = open_index(folder)
        self._names = np.ascontiguousarray(self.index.rows['name'])
        if len(np.unique(self._names)) < len(self._names):
            # The names start again in each shard: the name of the shard makes them unique.
            stems = np.array([f'{Path(name).stem}/'.encode() for name in self.index.shards])
            self._names = np.char.add(stems[self.index.shard], self._names)
        self._order = np.argsort(self._names, kind='stable')
        # The last reference closes a file, so no thread loses one that it reads.
        self.file = lru_cache(_MAX_OPEN)(self._open)

    def samples(self) -> Iterator[tuple[str, int]]:
        names = (name.decode() for name in self._names.tolist())
        return zip(names, self.index.rows['label'].tolist(), strict=True)

    def read(self, name: str) -> bytes:
        row = self._row(name)
        file = self.file(int(self.index.shard[row]))
        _, offset, size, _ = self.index.rows[row].item()
        content = b''
        while len(content) < size:
            part = os.pread(file.fileno(), size - len(content), offset + len(content))
            if not part:
                raise OSError(errno.EIO, 'the shard is shorter than its index says', name)
            content += part
        return content

    def _open(self, shard: int) -> FileIO:
        return FileIO(self.folder / self.index.shards[shard])

    def _row(self, name: str) -> int:
        for text in (name, member_name(name)):
            key = np.array(text.encode(), self._names.dtype)  # cuts what is longer than all names
            place = int(np.searchsorted(self._names, key, sorter=self._order))
            row = int(self._order[place]) if place < len(self._order) else -1
            if row >= 0 and self._names[row] == text.encode():
                return row
        raise self._missing(name)


class LmdbPack(Pack):
    """An LMDB whose keys are names and whose values are files. ``labels.txt`` has the classes."""

    _environment: Any = None

    def samples(self) -> Iterator[tuple[str, int]]:
        listing = self._listing()
        if listing is None:
            raise InputError(
                f"'{self.folder}' has no {LABELS} with a line NAME LABEL for each image (label -1 for "
                'no class); tools/dataset_converters/pack_dataset.py writes it'
            )
        return iter(listing.items())

    def read(self, name: str) -> bytes:
        import lmdb

        try:
            if self._environment is None:
                self._environment = lmdb.open(
                    str(self.folder), readonly=True, lock=False, readahead=False, meminit=False
                )
                self._check_size()
            with self._environment.begin() as transaction:
                found = transaction.get(name.encode())
        except lmdb.Error as error:
            raise OSError(errno.EIO, f'LMDB: {error}', f'{self.folder}!/{name}') from error
        if found is None:
            raise self._missing(name)
        return found

    def _check_size(self) -> None:
        """Refuse a file that is cut off: reading beyond its end would kill the process."""
        file, environment = self.folder / LMDB_FILE, self._environment
        least = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
        if (size := file.stat().st_size) < least:
            self.close()
            raise InputError(
                f"'{file}' has {size} bytes, but the LMDB in it has {least}: it is cut off; copy it "
                'again, or pack the dataset again'
            )

    def close(self) -> None:
        """Close the environment. The next read opens it again."""
        if self._environment is not None:
            self._environment.close()
        self._environment = None


_open: dict[str, Pack] = {}


@cache  # resolving symbolic links is too slow for each image
def open_pack(folder: str | os.PathLike[str]) -> Pack:
    """Open a folder of tar shards or an LMDB, once in each process."""
    path = os.path.realpath(os.path.expanduser(folder))
    if path not in _open:
        _open[path] = read_pack(Path(path))
    return _open[path]


def read_pack(path: Path) -> Pack:
    """Open a packed dataset again, by its absolute path; see :func:`open_pack`."""
    if not path.is_dir():
        raise InputError(f"'{path}' is not a folder; expected a folder of tar shards, or an LMDB")
    if (path / LMDB_FILE).exists():
        require_lmdb(f"'{path}' is an LMDB")
        return LmdbPack(path)
    try:
        return TarPack(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def require_lmdb(reason: str) -> None:
    """Raise InputError if the package ``lmdb`` is missing."""
    try:
        import lmdb  # noqa: F401
    except ImportError as error:
        raise InputError(f'{reason}: it needs the package lmdb: pip install lmdb') from error


def read_classes(folder: Path) -> tuple[str, ...] | None:
    """Read the class names of a packed dataset; None without ``classes.txt``."""
    lines = read_lines(folder / CLASSES)
    return None if lines is None else tuple(lines)


def _close_environments() -> None:
    for pack in _open.values():
        if isinstance(pack, LmdbPack):
            pack.close()


# LMDB forbids the use of an environment after a fork, and a second environment in one process.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_close_environments)


@register_backend('mobileone_mm.packed', prefixes='packed')
class PackedBackend(BaseStorageBackend):
    """Read files from tar shards or an LMDB.

    Addresses like ``packed://FOLDER!/NAME`` need no arguments. A dataset that gives paths (COCO's,
    VOC's) needs ``backend_args`` in its loading transform::

        dict(type='mobileone_mm.LoadImage', backend_args=dict(
            backend='mobileone_mm.packed', path='coco_train.lmdb', root='data/coco/train2017'))

    Args:
        path: Folder of the packed dataset; InputError if it is none.
        root: The folder that was packed. Names are relative to it; it need not exist.
    """

    def __init__(self, path: str = '', root: str = '') -> None:
        self.path, self.root = path, root
        if path:
            open_pack(path)

    def get(self, filepath: str | Path) -> bytes:
        """Return the bytes of a file; FileNotFoundError if the packed dataset does not have it."""
        text = str(filepath)
        if text.startswith(PREFIX):
            folder, _, name = text.removeprefix(PREFIX).partition(INSIDE)
        else:
            folder, name = self.path, Path(os.path.relpath(text, self.root or '.')).as_posix()
        return open_pack(folder).read(name)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        return self.get(filepath).decode(encoding)
