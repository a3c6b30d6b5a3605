"""Packing a dataset of single files: into tar shards or an LMDB, whole or not at all."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mmengine import fileio

from ...errors import InputError, ProofError
from .backend import PREFIX
from .packs import CLASSES, LABELS, read_pack
from .tar_members import IMAGES, NO_LABEL, member_name

FORMATS = ('shards', 'lmdb')
# Reading from a network storage is waiting; a few threads wait side by side.
_READERS, _READ_TOGETHER = 8, 64
_LMDB_KEY = 511
_MB = 10**6


@dataclass(frozen=True)
class Item:
    """An image to pack.

    Attributes:
        path: Where it is now, for mmengine's file functions.
        name: What it is to be called, with folders.
        label: Its class, -1 without one.
    """

    path: str
    name: str
    label: int = NO_LABEL


def write_pack(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    form: str = 'shards',
    classes: Sequence[str] | None = None,
    seed: int | None = 0,
    shard_size: int = 500,
) -> int:
    """Pack images, their bytes unchanged, and read everything back.

    Args:
        items: The images.
        out: New or empty folder.
        form: ``shards`` or ``lmdb``.
        classes: Names of the classes, by number.
        seed: The shards get the images in an order shuffled with this seed; None keeps the order.
            The order within an LMDB is that of the names.
        shard_size: A shard is closed when it has this many MB (10^6 bytes).

    Returns:
        The number of bytes of the images.

    Raises:
        InputError: Names or arguments do not fit, an image cannot be read, or the folder cannot be
            written; there is nothing at ``out`` then.
        ProofError: What was read back is not what was packed; there is nothing at ``out`` then.
    """
    _check(items, form, shard_size)
    target = _new_folder(out)
    with _whole_folder(target) as folder:
        if form == 'shards':
            ordered = list(items)
            if seed is not None:
                random.Random(seed).shuffle(ordered)
            sums = _write_shards(folder, ordered, shard_size * _MB)
        else:
            sums = _write_lmdb(folder, sorted(items, key=lambda item: item.name.encode()))
        lines = ''.join(f'{_name(item, form)} {item.label}\n' for item in items)
        (folder / LABELS).write_text(lines, encoding='utf-8')
        if classes is not None:
            (folder / CLASSES).write_text('\n'.join(classes) + '\n', encoding='utf-8')
        _check_back(folder, items, form, sums)
    return sum(size for size, _ in sums.values())


def _check(items: Sequence[Item], form: str, shard_size: int) -> None:
    if form not in FORMATS:
        raise InputError(f"--format: got '{form}'; {', '.join(FORMATS)} are allowed")
    if form == 'lmdb':
        try:
            import lmdb  # noqa: F401
        except ImportError as error:
            raise InputError('--format lmdb needs the package lmdb: pip install lmdb') from error
    if shard_size < 1:
        raise InputError(f'--shard-size: got {shard_size}; at least 1 (MB) is needed')
    if not items:
        raise InputError('the dataset is empty: there is nothing to pack')
    seen: dict[str, str] = {}
    for item in items:
        key = item.name
        if form == 'shards':
            key, _, ending = member_name(key).rpartition('.')
            if ending.lower() not in IMAGES:
                raise InputError(f"'{item.path}': no image; {', '.join(IMAGES)} can be packed")
        elif len(key.encode()) > _LMDB_KEY:
            raise InputError(f"'{item.path}': the name is too long for LMDB ({_LMDB_KEY} bytes)")
        if '\n' in key:
            raise InputError(f'{item.path!r}: a line break in the name; rename it')
        if key in seen:
            raise InputError(
                f"'{seen[key]}' and '{item.path}' would both be called '{key}'; rename one of them"
                + (', or take --format lmdb' if form == 'shards' else '')
            )
        seen[key] = item.path


def _write_shards(folder: Path, items: Sequence[Item], most: int) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    contents = _contents(items)
    number = 0
    while len(sums) < len(items):
        with tarfile.open(folder / f'shard-{number:06d}.tar', 'w') as tar:
            for item, content in contents:
                name = member_name(item.name)
                _add(tar, name, content)
                if item.label != NO_LABEL:
                    _add(tar, f'{name.rpartition(".")[0]}.cls', str(item.label).encode())
                sums[name] = len(content), zlib.crc32(content)
                if tar.offset >= most:
                    break
        number += 1
    return sums


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # The same images give the same file: no time, no owner.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _write_lmdb(folder: Path, items: Sequence[Item]) -> dict[str, tuple[int, int]]:
    import lmdb

    sums: dict[str, tuple[int, int]] = {}
    # The map is address space, not memory: the file takes what is used. It grows with what comes.
    room = 64 * _MB
    try:
        with lmdb.open(str(folder), map_size=room, subdir=True) as environment:
            for batch in _batches(_contents(items)):
                room += sum(len(content) + 3 * 4096 for _, content in batch)
                environment.set_mapsize(room)
                with environment.begin(write=True) as transaction:
                    for item, content in batch:
                        transaction.put(item.name.encode(), content, append=True)
                        sums[item.name] = len(content), zlib.crc32(content)
    except lmdb.Error as error:
        raise InputError(f'OUT: LMDB cannot be written: {error}; is the disk full?') from error
    (folder / 'lock.mdb').unlink(missing_ok=True)  # readers take no locks
    return sums


def _contents(items: Sequence[Item]) -> Iterator[tuple[Item, bytes]]:
    # Packs are read by one thread at a time.
    readers = 1 if items[0].path.startswith(f'{PREFIX}://') else _READERS
    with ThreadPoolExecutor(readers) as pool:
        for start in range(0, len(items), _READ_TOGETHER):
            together = items[start : start + _READ_TOGETHER]
            yield from zip(together, pool.map(_read, together), strict=True)


def _read(item: Item) -> bytes:
    try:
        return fileio.get(item.path)
    except OSError as error:
        raise InputError(f"'{item.path}' cannot be read: {error.strerror or error}") from error


def _batches(pairs: Iterable[tuple[Item, bytes]]) -> Iterator[list[tuple[Item, bytes]]]:
    batch: list[tuple[Item, bytes]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _READ_TOGETHER:
            yield batch
            batch = []
    if batch:
        yield batch


def _name(item: Item, form: str) -> str:
    return member_name(item.name) if form == 'shards' else item.name


def _check_back(
    folder: Path, items: Sequence[Item], form: str, sums: dict[str, tuple[int, int]]
) -> None:
    pack = read_pack(folder)
    try:
        labels = dict(pack.samples())
        for item in items:
            name = _name(item, form)
            try:
                content = pack.read(name)
            except OSError as error:
                raise ProofError(f"'{item.path}' cannot be read back: {error}") from error
            if (len(content), zlib.crc32(content)) != sums[name]:
                raise ProofError(
                    f"'{item.path}' was read back with other bytes; nothing is written"
                )
            if labels.get(name) != item.label:
                raise ProofError(
                    f"'{item.path}' has class {item.label}, read back was {labels.get(name)}"
                )
        if len(labels) != len(items):
            raise ProofError(f'{len(items)} images were packed, {len(labels)} read back')
    finally:
        pack.close()


def _new_folder(out: str | os.PathLike[str]) -> Path:
    target = Path(out).expanduser().absolute()
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"OUT: '{out}' is not empty; give a new or empty folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"OUT: '{out}' is a file; give a new or empty folder")
    return target


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its name at the end, all files on the disk; or none."""
    work = target.with_name(f'.{target.name}.{uuid.uuid4().hex[:12]}.tmp')
    made = [parent for parent in target.parents if not parent.exists()]
    done = False
    try:
        work.mkdir(parents=True)
        yield work
        for path in work.iterdir():
            with path.open('rb') as file:
                os.fsync(file.fileno())
        os.replace(work, target)
        done = True
    except OSError as error:
        raise InputError(
            f"OUT: '{target}' cannot be written: {error.strerror or error}; choose another folder"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not done:
            for parent in made:
                with suppress(OSError):  # somebody else may have put a file into it
                    parent.rmdir()
