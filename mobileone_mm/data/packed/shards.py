"""Tar shards in WebDataset's layout: their samples, and the stored index of where each image is."""

import json
import logging
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple
from zipfile import BadZipFile

import numpy as np
from mmengine.logging import print_log

from ...errors import InputError
from ...files import atomic_write
from ..image_files import IMAGE_SUFFIXES, OtherFiles

IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
NO_LABEL = -1
INDEX_FILE = 'index.npz'
_VERSION = 3  # an index has the images of the suffixes of its time
# WebDataset's rule: the key ends at the first dot of the file name. Folders belong to the key.
_MEMBER = re.compile(r'^((?:.*/)?[^./][^./]*)\.([^/]*)$', re.DOTALL)


class Sample(NamedTuple):
    """The member name of an image, its first byte and size in the tar file, and its class."""

    name: str
    offset: int
    size: int
    label: int = NO_LABEL


class ShardIndex(NamedTuple):
    """The samples of all shards, in the order of the shards and of the members."""

    shards: tuple[str, ...]  # file names
    shard: np.ndarray  # by sample, an index into ``shards``
    rows: np.ndarray  # structured: ``name`` (UTF-8), ``offset``, ``size`` and ``label``


def member_name(name: str) -> str:
    """Return the name of a file in a shard, with underscores for the dots before the suffix."""
    folder, slash, file = name.rpartition('/')
    stem, dot, suffix = file.rpartition('.')
    return folder + slash + (stem.replace('.', '_') + dot + suffix if stem else file)


def open_index(folder: Path) -> ShardIndex:
    """Return the index of the shards in a folder, and store it as ``index.npz``.

    Only the headers of new and changed shards (by size and modification time) are read. If the folder
    is read-only, each process reads all headers.
    """
    paths = sorted(folder.glob('*.tar'))
    if not paths:
        raise InputError(
            f"'{folder}' has no *.tar shards; tools/dataset_converters/pack_dataset.py writes shards"
        )
    keys = [f'{_VERSION}/{p.name}/{p.stat().st_size}/{p.stat().st_mtime_ns}' for p in paths]
    stored: dict[str, np.ndarray] = {}
    # If the file is missing or damaged, the index is built again.
    with suppress(OSError, ValueError, EOFError, BadZipFile), np.load(folder / INDEX_FILE) as file:
        stored = dict(file)
    fresh = sum(key not in stored for key in keys)
    if fresh:
        print_log(f'Reading the headers of {fresh} shards for the index.', 'current')
    others = OtherFiles()
    parts = [
        stored[key] if key in stored else _table(read_samples(path, others))
        for key, path in zip(keys, paths, strict=True)
    ]
    others.warn(f"'{folder}'")
    if list(stored) != keys:
        table = dict(zip(keys, parts, strict=True))
        try:
            atomic_write(folder / INDEX_FILE, lambda file: np.savez(file, **table))  # type: ignore[arg-type]
        except InputError as error:
            print_log(f'{error}; each process builds the index again', 'current', logging.WARNING)
    shard = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    return ShardIndex(tuple(path.name for path in paths), shard, np.concatenate(parts))


def _table(samples: Iterable[Sample]) -> np.ndarray:
    rows = [(name.encode(), offset, size, label) for name, offset, size, label in samples]
    longest = max((len(row[0]) for row in rows), default=1)
    numbers = [(field, np.int64) for field in ('offset', 'size', 'label')]
    return np.array(rows, [('name', f'S{longest}'), *numbers])


def read_samples(path: Path, others: OtherFiles | None = None) -> Iterator[Sample]:
    """Yield the samples of a tar file in its order; read headers and labels only.

    ``others`` counts the files of samples without an image.
    """
    others = OtherFiles() if others is None else others
    with path.open('rb') as file:
        for key, members in groupby(_members(path, file), lambda found: found[0]):
            image, label, unread = None, NO_LABEL, []
            for _, suffix, member in members:
                if suffix in ('cls', 'json'):
                    label = _label(path, file, member, suffix, label)
                elif suffix in IMAGES and image is not None:
                    raise InputError(
                        f"shard '{path}': '{key}' has a second image, .{suffix}; a sample has one image"
                    )
                elif suffix in IMAGES:
                    image = Sample(member.name, member.offset_data, member.size)
                else:
                    unread.append(member.name)
            if image is not None:
                yield image._replace(label=label)
            else:
                for name in unread:
                    others.add(PurePath(name).name)


def _members(path: Path, file: BinaryIO) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield key, suffix and header of each file in a tar file."""
    length = path.stat().st_size
    try:
        with tarfile.open(fileobj=file, mode='r:') as tar:
            for member in tar:
                found = _MEMBER.match(member.name)
                if not member.isreg() or found is None:
                    continue
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"'{member.name}' is truncated")
                yield found[1], found[2].lower(), member
            # tarfile takes a damaged header for the end of the archive, except for the first header.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b'\0'):
                raise tarfile.ReadError(f'no header at byte {tar.offset}')
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise InputError(
            f"shard '{path}' is not a tar file, is compressed or is damaged: {error}; "
            'pack it again without compression, or remove it'
        ) from error


def _label(path: Path, file: BinaryIO, member: tarfile.TarInfo, suffix: str, earlier: int) -> int:
    """Read the class of a ``.cls`` or ``.json`` member; ``earlier`` comes from the other member."""
    file.seek(member.offset_data)
    content = file.read(member.size)
    try:
        label: Any = int(content) if suffix == 'cls' else json.loads(content)
        if suffix == 'json':
            label = label.get('label', label.get('cls', earlier))
        if type(label) is not int or label < NO_LABEL or earlier not in (label, NO_LABEL):
            raise ValueError(label)
    except (ValueError, AttributeError):
        raise InputError(
            f"shard '{path}': '{member.name}' holds {content[:40]!r}; expected a class number from 0 "
            "(in .json as 'label' or 'cls'), the same in .cls and .json"
        ) from None
    return label
