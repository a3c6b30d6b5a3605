"""Read checkpoints without running code in them: ``weights_only`` or safetensors, always.

torch's ``weights_only`` reader builds tensors and plain containers and refuses everything else,
checks the size of every storage against the file, and never reads beyond it. This module adds what
that reader lacks: checksums of zip files, the objects of mmengine's Runner (see
:mod:`mobileone_mm.weights.allowed`), and errors of one line.
"""

import os
import re
import stat
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import InputError
from .allowed import ALLOWED, shown_name

_LOCK = threading.RLock()


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a local checkpoint of torch (zip or older) or safetensors, told apart by its content.

    A file that is missing, broken, no checkpoint, or needs code to be loaded, is an InputError.
    """
    path = Path(os.path.expanduser(path))
    if '\0' in str(path):
        raise InputError(f'checkpoint {str(path)!r}: no such file; check the path')
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError('is a folder; give a file in it')
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for a writer
            raise InputError('is no regular file')
        if status.st_size == 0:
            raise InputError('is empty (0 bytes); copy or download it again')
        # Opened once: what is checked is what is read, even if another file takes its name.
        with path.open('rb') as file:
            checkpoint = _read(file, path.suffix, map_location)
        if not isinstance(checkpoint, Mapping):
            raise InputError(
                f'holds a {type(checkpoint).__name__}; expected a dict with the weights (save '
                'model.state_dict())'
            )
    except Exception as error:  # torch has no common error for what is wrong with a file
        raise InputError(f"checkpoint '{path}': {_reason(error)}") from error
    return checkpoint  # type: ignore[return-value]


def _read(file: BinaryIO, suffix: str, map_location: Any) -> Any:
    head = file.read(9)
    file.seek(0)
    if suffix == '.safetensors' or (head[8:9] == b'{' and head[:2] != b'PK'):
        try:
            from safetensors.torch import load
        except ImportError:
            raise InputError('reading it needs a library; run `pip install safetensors`') from None
        device = 'cpu' if map_location is None else map_location
        return {key: value.to(device) for key, value in load(file.read()).items()}
    if head[:4] == b'PK\x03\x04':
        _check_zip(file)
    elif head[:1] != b'\x80':
        raise InputError(
            'is no checkpoint; expected a file of torch.save (.pth, .pt, .pth.tar) or a .safetensors '
            'file'
        )
    # No mmap, neither here nor above: a later checkpoint that is written over this file would change
    # the mapped tensors or kill the process, and a Runner resumes from a file that it may write again.
    return torch_load(file, map_location)


def _check_zip(file: BinaryIO) -> None:
    """Check what torch does not: checksums, compressed records, programs in place of weights."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = {entry.filename.partition('/')[2] for entry in entries}
        if 'data.pkl' not in names or 'constants.pkl' in names:
            kind = 'a TorchScript program' if 'constants.pkl' in names else 'some other zip file'
            raise InputError(f'is {kind}, not weights; save model.state_dict()')
        # torch.save stores without compression, so a file cannot hold more than its size.
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise ValueError('it declares more data than it has')
        if damaged := archive.testzip():
            raise ValueError(f'wrong checksum of {shown_name(damaged)}')
    file.seek(0)


def torch_load(file: Any, map_location: Any = None, **_: Any) -> Any:
    """Call ``torch.load`` with :data:`~mobileone_mm.weights.allowed.ALLOWED` as its allow-list.

    A list that another library has added to (a real ``getattr``, say) must not be mixed in.
    """
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(list(ALLOWED))
        try:
            return torch.load(file, map_location=map_location, weights_only=True)
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError) and error.filename is not None:  # from stat or open
        missing = isinstance(error, FileNotFoundError)
        return 'no such file; check the path' if missing else f'cannot be read ({error.strerror})'
    if code := re.search(r'GLOBAL ([\w.]+)', text):
        return (
            f'refers to code ({code[1][:80]}) that weights do not need, and was not loaded; save the '
            'plain state dict, or get the file from a source that you trust'
        )
    if isinstance(error, MemoryError):
        return 'does not fit into memory'
    if 'deserialize object on' in text:
        return f'cannot be loaded to the device: {first_line(text)}'
    return (
        f'is cut off, damaged or no checkpoint ({type(error).__name__}: {first_line(text)}); copy or '
        'download it again, or save it again by torch.save(model.state_dict(), ...)'
    )


def first_line(text: str) -> str:
    """Return the part of an error of torch's that names the cause."""
    # torch appends advice on unsafe loading and stack traces.
    text = text.rpartition('WeightsUnpickler error: ')[2]
    line = re.sub(r'\x1b\[\d*m', '', text.strip()).split('\n')[0].split('. ')[0]
    return ''.join(filter(str.isprintable, line[:150])).strip() or 'no reason given'
