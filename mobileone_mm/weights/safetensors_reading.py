"""Reading safetensors: its own library, after a look at what the library lets pass."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from .inert import RefusedError

# The library's own limit.
_MAX_HEADER = 100_000_000


def read_safetensors(path: Path, file: BinaryIO, map_location: Any = 'cpu') -> dict[str, Any]:
    """The tensors of an open file.

    The library takes the last of two tensors of one name, and its ``load_file`` maps the file: when
    another process cuts or rewrites it, the weights change, or the process dies. Here a name must be
    single, and the data are read.

    Args:
        path: Its name, for messages.
        file: The file, at any position.
        map_location: A device, or None for the CPU.

    Raises:
        InputError: The library is not installed.
        Exception: The file is broken.
    """
    try:
        from safetensors.torch import load
    except ImportError:
        raise InputError(
            f"checkpoint '{path}': reading it needs a library; run `pip install safetensors`"
        ) from None
    _check_header(file)
    file.seek(0)
    device = 'cpu' if map_location is None else map_location
    return {key: value.to(device) for key, value in load(file.read()).items()}


def _check_header(file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    length = int.from_bytes(file.read(8), 'little')
    if length > min(_MAX_HEADER, size - 8):
        raise ValueError(f'its header is said to have {length} bytes, the file has {size}')
    header = json.loads(file.read(length).decode(), object_pairs_hook=_single)
    if not isinstance(header, dict):
        raise ValueError('its header is no table')
    ends = [0]
    for name, entry in header.items():
        if name != '__metadata__':
            ends.append(entry['data_offsets'][1])
    if 8 + length + max(ends) != size:
        raise ValueError(f'declares {max(ends)} bytes of weights, has {size - 8 - length}')


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise RefusedError(f'holds the key {key[:80]!r} twice')
        table[key] = value
    return table
