"""Public MobileOne weights by name, such as ``mobileone_mm://s2-apple``.

``python -m mobileone_mm.weights.published`` prints where they are and what they expect.
"""

import hashlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import InputError
from ..files import atomic_write, sha256_of
from .reading import first_line

PREFIX = 'mobileone_mm://'
_IMAGENET = 'RGB, mean (123.675, 116.28, 103.53), std (58.395, 57.12, 57.375)'
_APPLE = 'https://docs-assets.developer.apple.com/ml-research'
_OPENMMLAB = 'https://download.openmmlab.com/mmclassification/v0/mobileone'
_TIMM = 'https://huggingface.co/timm'
#: the convention of torch.hub and OpenMMLab: the name ends in the beginning of the SHA-256
_HASH = re.compile(r'-([0-9a-f]{8,})\.')
_OPENMMLAB_HASHES = ('0bc94952', 'ceeef467', '9c7ecb97', 'c95eb3bf', '28d888cb')


class NamedWeights(NamedTuple):
    """One public file."""

    url: str
    form: str
    licence: str  # as far as the publisher says
    preprocessing: str = _IMAGENET
    sha256: str | None = None  # its beginning, where it is known


def _table() -> Iterator[tuple[str, NamedWeights]]:
    apple = "Apple's licence of ml-mobileone"
    for n, digest in enumerate(_OPENMMLAB_HASHES):
        file = f'{_APPLE}/datasets/mobileone/mobileone_s{n}'
        yield f's{n}-apple', NamedWeights(f'{file}.pth.tar', 'deploy', apple)
        yield f's{n}-apple-unfused', NamedWeights(f'{file}_unfused.pth.tar', 'train', apple)
        file = f'{_OPENMMLAB}/mobileone-s{n}_8xb32_in1k_20221110-{digest}.pth'
        yield f's{n}-openmmlab', NamedWeights(file, 'train', 'Apache-2.0', sha256=digest)
        file = f'{_TIMM}/mobileone_s{n}.apple_in1k/resolve/main/model.safetensors'
        yield f's{n}-timm', NamedWeights(file, 'train', f'{apple} (the same weights)')
    file = f'{_APPLE}/models/corenet/v0.1.0/mobileone/imagenet-1k/mobileone-s1.pt'
    yield 's1-corenet', NamedWeights(file, 'train', "Apple's licence of CoreNet", 'RGB from 0 to 1')


NAMED: dict[str, NamedWeights] = dict(_table())


def local_file(source: str | os.PathLike[str]) -> Path:
    """Return the path of a checkpoint on this machine; a remote file is fetched into the cache.

    The source is a path, ``http://...``, ``https://...``, ``mobileone_mm://NAME``, or an address that
    a back end of mmengine's file client takes (``s3://...``, ``petrel://...``). An unknown name, and a
    file that cannot be fetched, are an InputError.
    """
    text = os.fspath(source)
    if not text:
        raise InputError(f"checkpoint: got ''; expected a path, an address or {PREFIX}NAME")
    if text.startswith(PREFIX):
        weights = NAMED.get(text.removeprefix(PREFIX))
        if weights is None:
            kinds = sorted({name.partition('-')[2] for name in NAMED})
            raise InputError(
                f"checkpoint '{text}': no such name; s0 to s4 with {', '.join(kinds)} (CoreNet: s1) "
                f'are known, such as {PREFIX}s0-apple'
            )
        return download(weights.url, weights.sha256)
    if text.startswith(('http://', 'https://')):
        return download(text)
    if '://' in text and not os.path.exists(text):
        return _from_storage(text)
    return Path(text)


def download(url: str, sha256: str | None = None) -> Path:
    """Return the path of a downloaded file in the cache, see :func:`cache_path`.

    A file that mmengine or ``torch.hub`` downloaded is under its base name, which several addresses
    share. It is used only if its SHA-256 is the known one, or the one that its name ends in.
    """
    path = cache_path(url)
    shared = path.parents[1] / path.name
    digest = sha256 or (match[1] if (match := _HASH.search(path.name)) else None)
    if digest and shared.is_file() and sha256_of(shared).startswith(digest):
        return shared
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"checkpoint '{url}': cannot be downloaded ({first_line(str(error))}); download it by "
                f"other means and put it at '{path}'"
            ) from error
    if sha256 and not (found := sha256_of(path)).startswith(sha256):  # also of an earlier download
        raise InputError(
            f"checkpoint '{path}': its SHA-256 begins with {found[: len(sha256)]}, that of {url} with "
            f'{sha256}; remove it and load again'
        )
    return path


def cache_path(address: str) -> Path:
    """Return where the cache keeps the file of an address; the whole address is the key.

    The folder (``checkpoints`` of torch's hub folder, which ``TORCH_HOME`` moves) has a folder for each
    address, and in it the file under its own name.
    """
    plain = address.partition('?')[0]
    host, name = plain.partition('://')[2].partition('/')[0], plain.rpartition('/')[2]
    key = f'{host}-{hashlib.sha256(address.encode()).hexdigest()[:16]}'
    return Path(torch.hub.get_dir(), 'checkpoints', key, name or 'checkpoint')


def _from_storage(address: str) -> Path:
    """Fetch a file from a cluster's storage again each time: such files may change."""
    from mmengine import fileio

    try:
        data = fileio.get_file_backend(address).get(address)
    except Exception as error:  # each back end has its own
        scheme = address.partition('://')[0]
        unknown = isinstance(error, KeyError)
        reason = f"it has no back end for '{scheme}'" if unknown else first_line(str(error))
        raise InputError(
            f"checkpoint '{address}': mmengine's file client cannot read it ({reason}); copy it to "
            'this machine and give its path'
        ) from error
    path = cache_path(address)
    atomic_write(path, data)
    return path


if __name__ == '__main__':
    if hasattr(signal, 'SIGPIPE'):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a traceback in `... | head`
    for label, row in NAMED.items():
        digest = row.sha256 or 'unknown'
        print(f'{PREFIX}{label}\n    {row.url}\n    form: {row.form}; SHA-256: {digest}')
        print(f'    licence: {row.licence}; input: {row.preprocessing}')
        print(f'    in the cache: {cache_path(row.url)}')
