"""Pack a folder or a dataset into tar shards or an LMDB, completely or not at all."""

import errno
import io
import os
import random
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from mmengine import fileio
from mmengine.registry import DATASETS

from ...errors import InputError, ProofError, check_least, several
from ...files import REASONS, atomic_folder, reason_of
from ..checks.folders import check_folder, class_folders
from ..image_files import IMAGE_SUFFIXES
from .packs import CLASSES, LABELS, PREFIX, read_pack, require_lmdb
from .shards import IMAGES, NO_LABEL, member_name

FORMATS = ('shards', 'lmdb')
# Reading from a network storage is mostly waiting, which several threads do at the same time.
_THREADS, _BATCH = 8, 64
_MB = 10**6
_LONGEST_KEY = 511  # bytes, of LMDB
# Size and CRC-32 by name.
Sums = dict[str, tuple[int, int]]


class Item(NamedTuple):
    """An image to pack: its path or address, its name in the pack, and its class (-1 for none)."""

    path: str
    name: str
    label: int = NO_LABEL


class Packed(NamedTuple):
    """What is in a pack, and what is not."""

    items: list[Item]
    size: int  # of the images, in bytes
    left_out: list[str]  # why images are not in it


Batches = Iterator[list[tuple[Item, bytes]]]
Source = tuple[list[Item], tuple[str, ...] | None]


def items_of_folder(folder: str | os.PathLike[str], with_label: bool = True) -> Source:
    """List the images below a folder, in mmpretrain's order, and the class names.

    With ``with_label``, the folders in it are classes, numbered in the order of their names. A warning
    counts the files that are no images.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"'{folder}' is not a folder")
    names = class_folders(path) if with_label else None
    if names == ():
        raise InputError(f"'{folder}' has no class folders; pass --no-labels, or a config")
    check_folder('SOURCE', path, IMAGE_SUFFIXES, names)
    return items_of_dataset(
        dict(
            type='mmpretrain.CustomDataset',
            data_root=str(folder),
            with_label=with_label,
            extensions=IMAGE_SUFFIXES,
        )
    )


def items_of_dataset(settings: Mapping[str, Any]) -> Source:
    """List the images of a dataset by its settings, in its order, and the class names if it has any.

    The default scope must be set.
    """
    dataset = DATASETS.build({**settings, 'pipeline': []})
    if not hasattr(dataset, 'get_data_info') or len(dataset) == 0:
        raise InputError(f'{type(dataset).__name__} has no list of images')
    items: list[Item] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        path, label = str(info.get('img_path', '')), info.get('gt_label', NO_LABEL)
        if not path or type(label) is not int:
            raise InputError(
                f"{type(dataset).__name__}: sample {index}: got img_path '{path}', class {label!r}; "
                'expected a path, and one number or none'
            )
        items.append(Item(path, _name(path, dataset), label))
    labelled = items[0].label != NO_LABEL
    return items, tuple(dataset.metainfo.get('classes') or ()) or None if labelled else None


def _name(path: str, dataset: Any) -> str:
    """Return the name below the folder of images, or below the data root."""
    for folder in (getattr(dataset, 'img_prefix', ''), getattr(dataset, 'data_root', '')):
        name = os.path.relpath(path, folder) if folder else '..'
        if not name.startswith('..'):
            return Path(name).as_posix()
    return Path(path).name


def write_pack(
    items: Sequence[Item],
    out: str | os.PathLike[str],
    form: str = 'shards',
    classes: Sequence[str] | None = None,
    seed: int | None = 0,
    shard_size: int = 500,
) -> Packed:
    """Pack images without changing their bytes, and compare what is read back.

    An image that cannot be read, or whose name the format cannot hold, is left out; InputError if no
    image remains, or two would have one name. ``classes`` are names by number. An LMDB is in the order
    of the names. The other arguments are those of
    :func:`mobileone_mm.apis.pack_dataset.pack_dataset`; after an error ``out`` does not exist.
    """
    if form not in FORMATS:
        raise InputError(f"--format: got '{form}'; expected one of {', '.join(FORMATS)}")
    if form == 'lmdb':
        require_lmdb('--format lmdb')
    check_least(1, shard_size=shard_size)
    if form == 'shards':
        items = [item._replace(name=member_name(item.name)) for item in items]
    left_out = [fault for item in items if (fault := _name_fault(item, form))]
    items = [item for item in items if not _name_fault(item, form)]
    _check_unique(items, form)
    with atomic_folder(out, 'OUT') as folder:
        if form == 'shards':
            ordered = list(items)
            if seed is not None:
                random.Random(seed).shuffle(ordered)
            sums = _write_shards(folder, _contents(ordered, left_out), shard_size * _MB)
        else:
            ordered = sorted(items, key=lambda item: item.name.encode())
            sums = _write_lmdb(folder, _contents(ordered, left_out))
        packed = [item for item in items if item.name in sums]
        if not packed:
            raise InputError(f'none of the images can be packed: {several(left_out)}')
        lines = ''.join(f'{item.name} {item.label}\n' for item in packed)
        (folder / LABELS).write_text(lines, encoding='utf-8')
        if classes is not None:
            (folder / CLASSES).write_text('\n'.join(classes) + '\n', encoding='utf-8')
        _compare(folder, packed, sums)
    return Packed(packed, sum(size for size, _ in sums.values()), left_out)


def _name_fault(item: Item, form: str) -> str | None:
    """Return why the name of an image cannot be in a pack, or None."""
    if form == 'shards' and item.name.rpartition('.')[2].lower() not in IMAGES:
        return f"'{item.path}' is not an image of type {', '.join(IMAGES)}"
    if '\n' in item.name:
        return f'{item.path!r} has a line break in its name; rename it'
    try:
        length = len(item.name.encode())
    except UnicodeEncodeError:
        return f'{item.path!r} has a name that is not UTF-8; rename it'
    if form == 'lmdb' and length > _LONGEST_KEY:
        return f"'{item.path}' has a name of {length} bytes; LMDB allows {_LONGEST_KEY}"
    return None


def _check_unique(items: Sequence[Item], form: str) -> None:
    seen: dict[str, str] = {}
    for item in items:
        key = item.name.rpartition('.')[0] if form == 'shards' else item.name
        if key in seen:
            raise InputError(
                f"'{seen[key]}' and '{item.path}' would both be called '{key}'; rename one of them"
                + (', or use --format lmdb' if form == 'shards' else '')
            )
        seen[key] = item.path


def _write_shards(folder: Path, batches: Batches, max_size: int) -> Sums:
    sums: Sums = {}
    contents = chain.from_iterable(batches)
    first = next(contents, None)
    for number in count():
        if first is None:
            break
        with tarfile.open(folder / f'shard-{number:06d}.tar', 'w') as tar:
            for item, content in chain([first], contents):
                _add(tar, item.name, content)
                if item.label != NO_LABEL:
                    key = item.name.rpartition('.')[0]
                    _add(tar, f'{key}.cls', str(item.label).encode())
                sums[item.name] = len(content), zlib.crc32(content)
                if tar.offset >= max_size:
                    break
        first = next(contents, None)
    return sums


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without time and owner: equal images give equal files
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _write_lmdb(folder: Path, batches: Batches) -> Sums:
    import lmdb

    sums: Sums = {}
    size = 64 * _MB  # of address space; the file only takes what is used
    try:
        with lmdb.open(str(folder), map_size=size, subdir=True) as environment:
            for batch in batches:
                size += sum(len(content) + 3 * 4096 for _, content in batch)
                environment.set_mapsize(size)
                with environment.begin(write=True) as transaction:
                    for item, content in batch:
                        transaction.put(item.name.encode(), content, append=True)
                        sums[item.name] = len(content), zlib.crc32(content)
    except lmdb.Error as error:
        # On a full disk LMDB reports a write that is too short as an input/output error.
        is_full = shutil.disk_usage(folder).free < _MB
        reason = REASONS[errno.ENOSPC] if is_full else error
        raise InputError(f'OUT: cannot write the LMDB: {reason}') from error
    (folder / 'lock.mdb').unlink(missing_ok=True)  # readers take no locks
    return sums


def _contents(items: Sequence[Item], left_out: list[str]) -> Batches:
    """Yield the items with the bytes of their images; add those that cannot be read to ``left_out``."""
    # A pack is read by one thread at a time.
    threads = 1 if items and items[0].path.startswith(PREFIX) else _THREADS
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            found = list(zip(batch, pool.map(_read, batch), strict=True))
            left_out += [content for _, content in found if isinstance(content, str)]
            yield [(item, content) for item, content in found if isinstance(content, bytes)]


def _read(item: Item) -> bytes | str:
    """Return the bytes of an image, or why it cannot be read."""
    try:
        return fileio.get(item.path)
    except OSError as error:
        return f"'{item.path}' cannot be read: {reason_of(error)}"


def _compare(folder: Path, items: Sequence[Item], sums: Sums) -> None:
    pack = read_pack(folder)
    for item in items:
        content = pack.read(item.name)
        if (len(content), zlib.crc32(content)) != sums[item.name]:
            raise ProofError(f"'{item.path}': other bytes were read back; nothing is written")
    if dict(pack.samples()) != {item.name: item.label for item in items}:
        raise ProofError('other names or classes were read back; nothing is written')
