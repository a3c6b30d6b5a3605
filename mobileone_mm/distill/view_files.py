"""The files of stored outputs: one safetensors file a view, with a checksum of all that is in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic_write
from ..weights.reading import first_line

_FILE = re.compile(r'view_(\d{4,})\.safetensors')
_ENTRY = 'teacher_outputs'
#: 1 had no checksum
_VERSION = 2


class DamagedViewError(InputError):
    """The file of a view is not as it was written; storing makes it again."""


@dataclass(frozen=True)
class OutputsMeta:
    """What all views of a folder have in common.

    Attributes:
        num_classes: Of the teachers.
        topk: How many probabilities an image has; all of them where it equals ``num_classes``.
        temperature: What logits were divided by.
        teachers: Their descriptions, without folders.
        fingerprints: SHA-256 of each; see ``Teacher.fingerprint``.
        transforms: Config of the transforms between loading and packing.
        seed: From which the seeds of the views are derived.
        images: SHA-256 of the sorted keys.
        depths: How many parts of a path the images' names have.
        unreadable: Names of images of the dataset that could not be read, and have no outputs.
    """

    num_classes: int
    topk: int
    temperature: float
    teachers: list[dict[str, Any]]
    fingerprints: list[str]
    transforms: list[dict[str, Any]]
    seed: int
    images: str
    depths: list[int]
    unreadable: list[str]


def image_key(name: str | PurePath) -> int:
    """The key of an image: 64 bits of a hash of its path below the dataset's folder."""
    text = PurePath(name).as_posix()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big')


def digest_of(keys: np.ndarray) -> str:
    """SHA-256 of sorted keys (uint64)."""
    return hashlib.sha256(np.ascontiguousarray(keys, '<u8').tobytes()).hexdigest()


def view_path(folder: str | Path, view: int) -> Path:
    """The file of a view, counted from 0."""
    return Path(folder, f'view_{view:04d}.safetensors')


def damaged(path: Path, reason: str = '') -> DamagedViewError:
    """The error about a damaged file, with what to do."""
    # No constructor of the error: data-loader workers send errors home by their text alone.
    return DamagedViewError(
        f"outputs '{path}': is damaged{reason and f' ({reason})'}; repeat the call of "
        'tools/misc/store_teacher_outputs.py that made it, which writes damaged views again'
    )


def plain_config(node: Any) -> Any:
    """A part of a config as JSON has it: lists for tuples, names for classes."""
    return json.loads(
        json.dumps(node, default=lambda value: getattr(value, '__name__', None) or str(value))
    )


def write_view(
    folder: str | Path, view: int, tensors: Mapping[str, np.ndarray], meta: OutputsMeta
) -> Path:
    """Write the file of a view in one step.

    Args:
        folder: Of the outputs.
        view: Its number.
        tensors: ``keys`` (uint64, sorted; N), ``signatures`` (uint8; N x S), ``scores`` (float16;
            N x K) and, unless all classes are stored, ``classes`` (uint16 or uint32; N x K).
        meta: Of the folder.

    Raises:
        InputError: It cannot be written, or the library is missing.
    """
    library = _library(folder)
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    entry = {'version': _VERSION, **asdict(meta)}
    entry['checksum'] = _checksum(entry, arrays)
    data = library.numpy.save(arrays, {_ENTRY: json.dumps(entry, sort_keys=True)})
    path = view_path(folder, view)
    atomic_write(path, lambda file: file.write(data))
    return path


def views_in(folder: Path) -> list[int]:
    """Numbers of the views that a folder has; none if there is no such folder."""
    if not folder.is_dir():
        return []
    found = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def read_meta(folder: str | Path, view: int) -> OutputsMeta:
    """What the file of a view says about itself.

    Raises:
        InputError: It is damaged, of another version, no such file, or no such file is there.
    """
    path = view_path(folder, view)
    entry = _entry(path, open_view(path))
    try:
        return OutputsMeta(**{k: v for k, v in entry.items() if k not in ('version', 'checksum')})
    except TypeError as error:
        raise damaged(path) from error


def verify_view(folder: str | Path, view: int) -> None:
    """Compare the file of a view with its checksum; reads all of it.

    Raises:
        DamagedViewError: They do not agree.
        InputError: See :func:`read_meta`.
    """
    path = view_path(folder, view)
    meta = read_meta(folder, view)
    file = open_view(path)
    entry = _entry(path, file)
    promised = entry.pop('checksum', None)
    try:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # the library's own error has no class of its own
        raise damaged(path, first_line(str(error))) from error
    keys = arrays.get('keys', np.empty(0, np.uint64))
    if promised != _checksum(entry, arrays) or digest_of(keys) != meta.images:
        raise damaged(path, 'its content does not have its checksum')


def open_view(path: Path) -> Any:
    """The file of a view, mapped, as the library gives it.

    Raises:
        DamagedViewError: It is no whole safetensors file.
        InputError: It cannot be opened, or the library is missing.
    """
    library = _library(path)
    try:
        return library.safe_open(path, framework='numpy').__enter__()
    except library.SafetensorError as error:
        raise damaged(path, first_line(str(error))) from error
    except OSError as error:
        raise InputError(f"outputs '{path}': cannot be read ({first_line(str(error))})") from error


def _entry(path: Path, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(_ENTRY)
    if text is None:
        raise InputError(f"outputs '{path}': holds no outputs of teachers; remove it")
    try:
        entry = dict(json.loads(text))
        version = entry['version']
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path) from error
    if version != _VERSION:
        raise InputError(
            f"outputs '{path}': is of version {version} of the format, {_VERSION} is needed; remove it "
            'and store it anew'
        )
    return entry


def _checksum(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over all that a file holds besides it."""
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f'{name} {array.dtype} {array.shape}'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _library(path: str | Path) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise InputError(
            f"outputs '{path}': a library is needed; run `pip install safetensors`"
        ) from None
    return safetensors
