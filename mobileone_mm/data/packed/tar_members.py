"""The samples of one tar file in WebDataset's layout: ``KEY.jpg`` with ``KEY.cls`` or ``KEY.json``."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...errors import InputError

IMAGES = ('jpg', 'jpeg', 'png', 'webp', 'bmp', 'ppm', 'pgm', 'tif', 'tiff')
NO_LABEL = -1
# WebDataset's rule: the key ends at the first dot of the file's name, folders belong to it.
_MEMBER = re.compile(r'^((?:.*/)?[^./][^./]*)\.([^/]*)$', re.DOTALL)
# A label is a number; a member of megabytes is something else under the same ending.
_LONGEST_LABEL = 1 << 20


class Sample(NamedTuple):
    """Where an image lies in a tar file: name, first byte, number of bytes; and its class."""

    name: str
    offset: int
    size: int
    label: int


def member_name(name: str) -> str:
    """The name that a file gets in a shard: dots before the ending would end WebDataset's key."""
    folder, slash, file = name.rpartition('/')
    stem, dot, ending = file.rpartition('.')
    return folder + slash + (stem.replace('.', '_') + dot + ending if stem else file)


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a tar file in its order; images are not read, only headers and labels.

    Raises:
        InputError: It is no tar file, is cut off, or its labels cannot be read.
        OSError: It cannot be opened.
    """
    with path.open('rb') as file:
        length = path.stat().st_size
        key: str | None = None
        image: Sample | None = None
        label = NO_LABEL
        for member in _members(path, file):
            found = _MEMBER.match(member.name)
            if not member.isreg() or found is None:
                continue
            if member.offset_data + member.size > length:
                raise _damaged(path, f"'{member.name}' is cut off")
            if found[1] != key:
                if image is not None:
                    yield image._replace(label=label)
                key, image, label = found[1], None, NO_LABEL
            ending = found[2].lower()
            if ending in ('cls', 'json'):
                label = _label(path, file, member, ending, label)
            elif ending in IMAGES:
                if image is not None:
                    raise InputError(
                        f"shard '{path}': '{key}' has two images, .{ending} is the second; "
                        'a sample has one'
                    )
                image = Sample(member.name, member.offset_data, member.size, NO_LABEL)
        if image is not None:
            yield image._replace(label=label)


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode='r:') as tar:
            yield from tar
            # tarfile takes a broken header for the end of the archive, unless it is the first.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b'\0'):
                raise _damaged(path, f'no header at byte {tar.offset}')
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise _damaged(path, str(error)) from error


def _label(path: Path, file: BinaryIO, member: tarfile.TarInfo, ending: str, earlier: int) -> int:
    """The class in a ``.cls`` or ``.json`` member; one of them may be silent, not both differ."""
    if member.size > _LONGEST_LABEL:
        raise _damaged(path, f"'{member.name}' is too large for a label")
    file.seek(member.offset_data)
    content = file.read(member.size)
    try:
        if ending == 'cls':
            label: Any = int(content)
        else:
            table = json.loads(content)
            label = table.get('label', table.get('cls', earlier)) if isinstance(table, dict) else ''
        if type(label) is not int or label < NO_LABEL:
            raise ValueError(label)
    except ValueError:
        raise InputError(
            f"shard '{path}': '{member.name}' holds {content[:40]!r}; a class number from 0 is "
            "needed (in .json as 'label' or 'cls')"
        ) from None
    if NO_LABEL not in (earlier, label) and label != earlier:
        raise InputError(
            f"shard '{path}': '{member.name}' says class {label}, another member {earlier}"
        )
    return label


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"shard '{path}': is no tar file, compressed, or damaged: {reason}; "
        'pack it again (uncompressed), or take it away'
    )
