"""Reading checkpoints without running what they say: ``weights_only`` or safetensors, always."""

from __future__ import annotations

import os
import re
import stat
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .allowed import ALLOWED
from .keys import scheme_of, to_classifier

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
        with _only(ALLOWED):
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


def for_host(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with the keys of a host's classifier if it is a foreign MobileOne's.

    A file of Apple's, timm's or CoreNet's naming gets ``backbone.`` and ``head.fc.``, so that
    ``load_from``, ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone')`` and the
    hosts' ``init_model`` take it as it is. Any other checkpoint comes back unchanged.
    """
    try:
        state = state_dict_of(checkpoint)
        if scheme_of(state) not in (None, 'mmpretrain'):
            return {'meta': {}, 'state_dict': to_classifier(state)}
    except InputError:  # no weights, or a net that only has a backbone of such names
        pass
    return checkpoint


def allow_mmengine_globals() -> None:
    """Let a plain ``torch.load`` read what mmengine's Runner writes.

    The original mmengine (0.10.7) calls ``torch.load`` without an allow-list, and since torch 2.6
    that refuses the Runner's own checkpoints: test and resume fail. This adds the stand-ins of
    :mod:`mobileone_mm.weights.allowed` to torch's list, and nothing else changes. OneDL's mmengine
    brings a list of its own; it is left alone, because the two would mix.
    """
    try:
        metadata.distribution('onedl-mmengine')
    except metadata.PackageNotFoundError:
        torch.serialization.add_safe_globals(list(ALLOWED))


def use_safe_loader() -> None:
    """Make mmengine's checkpoint loader read local and downloaded files by :func:`read_checkpoint`.

    From then on ``Runner.load_checkpoint``, ``Runner.resume``, ``init_cfg`` of type ``Pretrained``
    and the hosts' ``init_*`` functions do so in this process. The original mmengine cannot read the
    Runner's checkpoints with torch 2.6 or later; OneDL's can, with the real ``getattr`` on its
    list, and reads whatever it refuses a second time with ``weights_only=False``, which runs the
    file's code; both read downloads with ``weights_only=False``.

    A MobileOne that is loaded by itself (``init_cfg`` of type ``Pretrained``, with or without
    ``prefix``) takes its part of a classifier's file, and a file of another size or form is an
    InputError; mmengine would log the keys and train from scratch.
    """
    from mmengine.runner import checkpoint

    from ..reparam import Reparameterizable
    from .loading import backbone_weights

    def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
        return for_host(read_checkpoint(filename, map_location))

    def load_url(
        url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
    ) -> dict[str, Any]:
        return for_host(read_checkpoint(_download(url, model_dir, progress), map_location))

    def safe_torch_load(file: Any, map_location: Any = None, **_: Any) -> Any:
        with _only(ALLOWED):
            return torch.load(file, map_location=map_location, weights_only=True)

    plain_load = getattr(checkpoint.load_state_dict, 'wrapped', checkpoint.load_state_dict)

    def load_state_dict(
        module: nn.Module, state_dict: Any, strict: bool = False, logger: Any = None
    ) -> None:
        if isinstance(getattr(module, 'stage0', None), Reparameterizable):
            state_dict = OrderedDict(backbone_weights(module, state_dict))
        plain_load(module, state_dict, strict, logger)

    load_state_dict.wrapped = plain_load  # type: ignore[attr-defined]
    checkpoint.load_state_dict = load_state_dict
    checkpoint.CheckpointLoader.register_scheme('', load_from_local, force=True)
    checkpoint.load_from_local = load_from_local
    checkpoint.load_url = load_url
    # What OneDL's other schemes (ceph, pavi) call; the original has no such function.
    checkpoint._safe_torch_load = safe_torch_load


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
def _only(allowed: tuple[tuple[Any, str], ...]) -> Iterator[None]:
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
        return InputError(f"checkpoint '{path}': cannot be loaded to the device: {_line(text)}")
    return InputError(
        f"checkpoint '{path}': is cut off, damaged or no checkpoint "
        f'({type(error).__name__}: {_line(text)}); copy or download it again'
    )


def _line(text: str) -> str:
    # torch appends advice on unsafe loading and stack traces; the first sentence names the cause.
    text = text.rpartition('WeightsUnpickler error: ')[2]
    line = re.sub(r'\x1b\[\d*m', '', text.strip()).split('\n')[0].split('. ')[0]
    return line[:150].strip() or 'no reason given'


def _download(url: str, model_dir: str | None, progress: bool) -> Path:
    """Path of a downloaded file in torch's cache, as ``torch.hub`` lays it out."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    path = folder / url.partition('?')[0].rpartition('/')[2]
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=progress)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"checkpoint '{url}': cannot be downloaded ({_line(str(error))}); download it by "
                f"other means and put it at '{path}'"
            ) from error
    return path
