"""Reading checkpoints without running what they say: ``weights_only`` or safetensors, always."""

from __future__ import annotations

import os
import re
import stat
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .allowed import ALLOWED

#: where training scripts put the weights in their files, in order of preference
STATE_DICT_KEYS = ('state_dict', 'model_state_dict', 'model_state', 'model', 'net')
#: what wrappers (DataParallel, torch.compile) put before every key
WRAPPER_PREFIXES = ('module.', '_orig_mod.')
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
    path = Path(path).expanduser()
    kind = _kind(path)
    if kind == 'safetensors':
        return _read_safetensors(path, map_location)
    if kind == 'zip':
        _check_zip(path)
    # No mmap: a later checkpoint that is written over this file would change or kill what is
    # mapped, and a Runner resumes from a file that it may write again.
    try:
        with only_globals(ALLOWED):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch has no common error for what is wrong with a file
        raise _broken(path, error) from error
    if not isinstance(checkpoint, Mapping):
        raise InputError(
            f"checkpoint '{path}': holds a {type(checkpoint).__name__}; a dict with the weights is "
            'needed (save model.state_dict())'
        )
    return checkpoint  # type: ignore[return-value]


def state_dict_of(checkpoint: Mapping[str, Any], source: str = 'checkpoint') -> dict[str, Tensor]:
    """The weights in a checkpoint, out of the wrappings that training scripts use.

    mmengine stores averaged weights (EMA) as ``state_dict`` and the raw ones as
    ``ema_state_dict``; the former are returned.

    Raises:
        InputError: There are no weights in it.
    """
    state: Any = checkpoint
    for key in STATE_DICT_KEYS:
        if isinstance(checkpoint.get(key), Mapping):
            state = checkpoint[key]
            break
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        shown = ', '.join(map(str, list(state)[:3])) or 'nothing'
        raise InputError(
            f'{source}: holds no weights (found: {shown}); a state dict, or a dict with one as '
            f"'{STATE_DICT_KEYS[0]}', is needed"
        )
    for prefix in WRAPPER_PREFIXES:
        if all(str(key).startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _kind(path: Path) -> str:
    """'zip', 'pickle' or 'safetensors', by the first bytes."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"checkpoint '{path}': is a folder; give a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"checkpoint '{path}': is no regular file")
        if status.st_size == 0:
            raise InputError(f"checkpoint '{path}': is empty (0 bytes); copy or download it again")
        with path.open('rb') as file:
            head = file.read(9)
    except FileNotFoundError:
        raise InputError(f"checkpoint '{path}': no such file; check the path") from None
    except OSError as error:
        raise InputError(f"checkpoint '{path}': cannot be read ({error.strerror})") from error
    if head[:4] == b'PK\x03\x04':
        return 'zip'
    if head[:1] == b'\x80':
        return 'pickle'
    length = int.from_bytes(head[:8], 'little')
    if path.suffix == '.safetensors' or (head[8:9] == b'{' and length < status.st_size):
        return 'safetensors'
    raise InputError(
        f"checkpoint '{path}': is no checkpoint; a file of torch.save (.pth, .pt, .pth.tar) or a "
        '.safetensors file is needed'
    )


def _check_zip(path: Path) -> None:
    """Reject what torch would fail on obscurely, or not notice."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = {entry.filename.rpartition('/')[2] for entry in entries}
            if 'data.pkl' not in names or 'constants.pkl' in names:
                kind = (
                    'a TorchScript program' if 'constants.pkl' in names else 'some other zip file'
                )
                raise InputError(
                    f"checkpoint '{path}': is {kind}, not weights; save model.state_dict()"
                )
            # torch.save stores without compression, so a file cannot hold more than its size.
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise InputError(
                    f"checkpoint '{path}': declares more data than it has; it is not from torch.save"
                )
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _broken(path, error) from error
    if damaged is not None:
        raise _broken(path, ValueError(f'wrong checksum of {damaged}'))


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(
            f"checkpoint '{path}': reading it needs a library; run `pip install safetensors`"
        ) from None
    try:
        return dict(load_file(path, device='cpu' if map_location is None else str(map_location)))
    except Exception as error:  # its error class derives from Exception, OSError comes too
        raise _broken(path, error) from error


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
    if code := re.search(r'GLOBAL ([\w.]+)', text):
        return InputError(
            f"checkpoint '{path}': refers to code ({code[1]}) that weights do not need, and was not "
            'loaded; save the plain state dict, or get the file from a source that you trust'
        )
    if isinstance(error, MemoryError):
        return InputError(f"checkpoint '{path}': does not fit into memory")
    if 'deserialize object on' in text:
        return InputError(
            f"checkpoint '{path}': cannot be loaded to the device: {first_line(text)}"
        )
    return InputError(
        f"checkpoint '{path}': is cut off, damaged or no checkpoint "
        f'({type(error).__name__}: {first_line(text)}); copy or download it again'
    )


def first_line(text: str) -> str:
    """The part of an error of torch's that names the cause."""
    # torch appends advice on unsafe loading and stack traces; the first sentence names the cause.
    text = text.rpartition('WeightsUnpickler error: ')[2]
    line = re.sub(r'\x1b\[\d*m', '', text.strip()).split('\n')[0].split('. ')[0]
    return line[:150].strip() or 'no reason given'
