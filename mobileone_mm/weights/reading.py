"""Reading checkpoints without running what they say: ``weights_only`` or safetensors, always."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..errors import InputError
from .allowed import ALLOWED
from .inert import RefusedError
from .inspection import Inspector, inspect_legacy
from .safetensors_reading import read_safetensors

_LOCK = threading.RLock()


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a local checkpoint; nothing in it can run code.

    Torch's files (zip or older, ``.pth``, ``.pt``, ``.pth.tar``) and safetensors are told apart by
    their content. What mmengine's Runner writes (message hub, NumPy numbers) is read as well, see
    :mod:`mobileone_mm.weights.allowed`.

    Args:
        path: The file.
        map_location: Where the tensors go, as in ``torch.load``.

    Raises:
        InputError: The file is missing, broken, no checkpoint, or needs code to be loaded.
    """
    path = Path(os.path.expanduser(path))
    with _open(path) as file:
        try:
            kind = _kind(path, file)
            if kind == 'safetensors':
                return read_safetensors(path, file, map_location)
            _inspect(path, file, kind)
            file.seek(0)
            # No mmap: a later checkpoint that is written over this file would change or kill what
            # is mapped, and a Runner resumes from a file that it may write again.
            with only_globals(ALLOWED):
                checkpoint = torch.load(file, map_location=map_location, weights_only=True)
        except InputError:
            raise
        except Exception as error:  # torch has no common error for what is wrong with a file
            raise _broken(path, error) from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(
            f"checkpoint '{path}': holds a {type(checkpoint).__name__}; a dict with the weights is "
            'needed (save model.state_dict())'
        )
    return checkpoint  # type: ignore[return-value]


def shown_name(name: Any) -> str:
    """A name out of a file, short and without what a terminal would obey."""
    text = str(name) if isinstance(name, (str, int, float)) else f'a {type(name).__name__}'
    return ''.join(char if char.isprintable() else '?' for char in text[:80])


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """The file, opened once: what is checked is what is read, even if another takes its name."""
    try:
        # Opening some devices acts on them, and a pipe would wait for a writer.
        _check_regular(path, path.stat())
        handle = os.open(
            path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)
        )
        file = os.fdopen(handle, 'rb')
    except FileNotFoundError:
        raise InputError(f"checkpoint '{path}': no such file; check the path") from None
    except OSError as error:
        raise InputError(f"checkpoint '{path}': cannot be read ({error.strerror})") from error
    except InputError:
        raise
    except ValueError as error:  # a null character
        raise InputError(f'checkpoint {str(path)!r}: no such file; check the path') from error
    with file:
        _check_regular(path, os.fstat(handle))
        yield file


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"checkpoint '{path}': is a folder; give a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"checkpoint '{path}': is no regular file")
    if status.st_size == 0:
        raise InputError(f"checkpoint '{path}': is empty (0 bytes); copy or download it again")


def _kind(path: Path, file: BinaryIO) -> str:
    """'zip', 'pickle' or 'safetensors', by the first bytes."""
    head = file.read(9)
    if head[:4] == b'PK\x03\x04':
        return 'zip'
    if head[:1] == b'\x80' and head[8:9] != b'{':
        return 'pickle'
    length = int.from_bytes(head[:8], 'little')
    if path.suffix == '.safetensors' or (head[8:9] == b'{' and length < _size(file)):
        return 'safetensors'
    raise InputError(
        f"checkpoint '{path}': is no checkpoint; a file of torch.save (.pth, .pt, .pth.tar) or a "
        '.safetensors file is needed'
    )


def _inspect(path: Path, file: BinaryIO, kind: str) -> None:
    """Reject what torch would fail on obscurely, or not notice."""
    size = _size(file)
    file.seek(0)
    if kind == 'pickle':
        inspect_legacy(file, size)
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        parts = [entry.filename.partition('/') for entry in entries]
        records = {name: entry for (_, _, name), entry in zip(parts, entries, strict=True)}
        if 'data.pkl' not in records or 'constants.pkl' in records:
            kind = 'a TorchScript program' if 'constants.pkl' in records else 'some other zip file'
            raise InputError(
                f"checkpoint '{path}': is {kind}, not weights; save model.state_dict()"
            )
        # torch.save stores without compression, so a file cannot hold more than its size.
        if sum(entry.file_size for entry in entries) > size:
            raise RefusedError('declares more data than it has')
        # torch takes the folder of the first entry, and names without regard to case.
        names = {entry.filename.lower() for entry in entries}
        if len(names) < len(entries) or len({folder for folder, _, _ in parts}) > 1:
            raise RefusedError('holds an entry twice')
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f'wrong checksum of {shown_name(damaged)}')
        content = archive.read(records['data.pkl'])
    storages = {
        name.removeprefix('data/'): entry.file_size
        for name, entry in records.items()
        if name.startswith('data/')
    }
    Inspector(io.BytesIO(content), storages, size).inspect()


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


@contextmanager
def only_globals(allowed: tuple[tuple[Any, str], ...]) -> Iterator[None]:
    """Within it, torch's allow-list holds these names and no others.

    A list that another library has added to (a real ``getattr``, say) must not be mixed in.
    """
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(list(allowed))
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _broken(path: Path, error: Exception) -> InputError:
    text = str(error)
    if isinstance(error, RefusedError) and not text.startswith('GLOBAL '):
        return InputError(
            f"checkpoint '{path}': {text}; save the plain state dict, or get the file from a source "
            'that you trust'
        )
    if code := re.search(r'GLOBAL ([\w.]+)', text):
        return InputError(
            f"checkpoint '{path}': refers to code ({code[1][:80]}) that weights do not need, "
            'and was not loaded; save the plain state dict, or get the file from a source that you '
            'trust'
        )
    if isinstance(error, MemoryError):
        return InputError(f"checkpoint '{path}': does not fit into memory")
    if 'deserialize object on' in text:
        return InputError(
            f"checkpoint '{path}': cannot be loaded to the device: {first_line(text)}"
        )
    return InputError(
        f"checkpoint '{path}': is cut off, damaged or no checkpoint "
        f'({type(error).__name__}: {first_line(text)}); copy or download it again, or save it anew by '
        'torch.save(model.state_dict(), ...)'
    )


def first_line(text: str) -> str:
    """The part of an error of torch's that names the cause."""
    # torch appends advice on unsafe loading and stack traces; the first sentence names the cause.
    text = text.rpartition('WeightsUnpickler error: ')[2]
    line = re.sub(r'\x1b\[\d*m', '', text.strip()).split('\n')[0].split('. ')[0]
    return ''.join(filter(str.isprintable, line[:150])).strip() or 'no reason given'
