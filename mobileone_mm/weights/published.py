"""Public MobileOne weights by name, such as ``mobileone_mm://s2-apple``.

``python -m mobileone_mm.weights.published`` prints where they are and what they expect.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import atomic_write
from .reading import first_line, read_checkpoint

PREFIX = 'mobileone_mm://'
_IMAGENET = 'RGB, mean (123.675, 116.28, 103.53), std (58.395, 57.12, 57.375)'
_APPLE = 'https://docs-assets.developer.apple.com/ml-research'
_OPENMMLAB = 'https://download.openmmlab.com/mmclassification/v0/mobileone'
_OPENMMLAB_HASHES = ('0bc94952', 'ceeef467', '9c7ecb97', 'c95eb3bf', '28d888cb')


@dataclass(frozen=True)
class NamedWeights:
    """One public file.

    Attributes:
        url: Where it is.
        form: 'train' or 'deploy'.
        licence: Of the weights, as far as their publisher says.
        preprocessing: What the classifier expects.
        sha256: Beginning of the file's SHA-256; None where it is not known.
    """

    url: str
    form: str
    licence: str
    preprocessing: str = _IMAGENET
    sha256: str | None = None


def _table() -> Iterator[tuple[str, NamedWeights]]:
    apple = "Apple's licence of ml-mobileone"
    for n in range(5):
        file = f'{_APPLE}/datasets/mobileone/mobileone_s{n}'
        yield f's{n}-apple', NamedWeights(f'{file}.pth.tar', 'deploy', apple)
        yield f's{n}-apple-unfused', NamedWeights(f'{file}_unfused.pth.tar', 'train', apple)
        digest = _OPENMMLAB_HASHES[n]
        file = f'{_OPENMMLAB}/mobileone-s{n}_8xb32_in1k_20221110-{digest}.pth'
        yield f's{n}-openmmlab', NamedWeights(file, 'train', 'Apache-2.0', sha256=digest)
        file = (
            f'https://huggingface.co/timm/mobileone_s{n}.apple_in1k/resolve/main/model.safetensors'
        )
        yield f's{n}-timm', NamedWeights(file, 'train', f'{apple} (the same weights)')
    file = f'{_APPLE}/models/corenet/v0.1.0/mobileone/imagenet-1k/mobileone-s1.pt'
    yield 's1-corenet', NamedWeights(file, 'train', "Apple's licence of CoreNet", 'RGB from 0 to 1')


NAMED: dict[str, NamedWeights] = dict(_table())


def read_any(source: str | os.PathLike[str], map_location: Any = 'cpu') -> dict[str, Any]:
    """Read a checkpoint from a local file, an address, or by name, safely in any case.

    Args:
        source: A path, ``http://...``, ``https://...``, ``mobileone_mm://NAME``, or an address that a
            back end of mmengine's file client takes (``s3://...``, ``petrel://...``).
        map_location: Where the tensors go.

    Raises:
        InputError: The name is unknown, the file cannot be had or read.
    """
    return read_checkpoint(local_file(source), map_location)


def local_file(source: str | os.PathLike[str]) -> Path:
    """Path of a checkpoint on this machine; what is elsewhere is fetched into the cache.

    The cache is the one that mmengine's loader downloads to: ``checkpoints`` of torch's hub folder,
    which ``TORCH_HOME`` moves.

    Raises:
        InputError: The name is unknown, or the file cannot be had.
    """
    text = os.fspath(source)
    if not text:
        raise InputError(f"checkpoint: got ''; a path, an address or {PREFIX}NAME is needed")
    if text.startswith(PREFIX):
        weights = find(text)
        return download(weights.url, sha256=weights.sha256)
    if text.startswith(('http://', 'https://')):
        return download(text)
    if '://' in text and not os.path.exists(text):
        return _from_storage(text)
    return Path(text)


def find(name: str) -> NamedWeights:
    """Look a file up by name, with or without ``mobileone_mm://``.

    Raises:
        InputError: There is none of that name.
    """
    key = name.removeprefix(PREFIX)
    if key not in NAMED:
        kinds = sorted({other.partition('-')[2] for other in NAMED})
        raise InputError(
            f"checkpoint '{name}': no such name; s0 to s4 with {', '.join(kinds)} (CoreNet: s1) are "
            f'known, such as {PREFIX}s0-apple'
        )
    return NAMED[key]


def download(
    url: str, folder: str | None = None, progress: bool = True, sha256: str | None = None
) -> Path:
    """Path of a downloaded file in torch's cache, as ``torch.hub`` lays it out.

    Args:
        url: Its address.
        folder: The cache; torch's if not given.
        progress: Show a bar.
        sha256: Beginning of its SHA-256, which is checked each time.

    Raises:
        InputError: It cannot be downloaded, or is another file than expected.
    """
    cache = _cache(folder)
    # Files of several publishers have one name: model.safetensors.
    name = '_'.join(url.partition('?')[0].split('/')[-4:]) if 'huggingface.co' in url else ''
    path = cache / (name or url.partition('?')[0].rpartition('/')[2])
    if not path.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=progress)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"checkpoint '{url}': cannot be downloaded ({first_line(str(error))}); download it by "
                f"other means and put it at '{path}'"
            ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest() if sha256 else ''
    if sha256 and not found.startswith(sha256):
        raise InputError(
            f"checkpoint '{path}': its SHA-256 begins with {found[: len(sha256)]}, that of {url} with "
            f'{sha256}; remove it and load again'
        )
    return path


def _cache(folder: str | None = None) -> Path:
    return Path(folder or Path(torch.hub.get_dir()) / 'checkpoints')


def _from_storage(address: str) -> Path:
    """A file of a cluster's storage, fetched anew each time: such files may change."""
    from mmengine import fileio

    path = _cache() / address.rpartition('/')[2]
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
    atomic_write(path, lambda file: file.write(data))
    return path


if __name__ == '__main__':
    for label, row in NAMED.items():
        digest = row.sha256 or 'unknown'
        print(f'{PREFIX}{label}\n    {row.url}\n    form: {row.form}; SHA-256: {digest}')
        print(f'    licence: {row.licence}; input: {row.preprocessing}')
