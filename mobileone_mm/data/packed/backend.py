"""A file backend of mmengine that reads single files from packed datasets."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend

from .packs import open_pack

PREFIX = 'packed://'
_INSIDE = '!/'
# open_pack resolves symbolic links, which is too slow for each image.
_opened = lru_cache(open_pack)


def address(folder: str | os.PathLike[str], name: str = '') -> str:
    """Return the address of an image for mmengine's file functions: ``packed://FOLDER!/NAME``."""
    return f'{PREFIX}{os.fspath(folder)}{_INSIDE}{name}'


@register_backend('mobileone_mm.packed', prefixes='packed')
class PackedBackend(BaseStorageBackend):
    """Read files from tar shards or an LMDB.

    Addresses from :func:`address` need no arguments. A dataset that gives paths (COCO's, VOC's)
    needs ``backend_args`` in its loading transform::

        dict(type='mobileone_mm.LoadImage', backend_args=dict(
            backend='mobileone_mm.packed', path='coco_train.lmdb', root='data/coco/train2017'))

    Args:
        path: Folder of the packed dataset; InputError if it is none.
        root: The folder that was packed. Names are relative to it; it need not exist.
    """

    def __init__(self, path: str = '', root: str = '') -> None:
        self.path, self.root = path, root
        if path:
            _opened(path)

    def get(self, filepath: str | Path) -> bytes:
        """Return the bytes of a file; FileNotFoundError if the packed dataset does not have it."""
        text = str(filepath)
        if text.startswith(PREFIX):
            folder, _, name = text.removeprefix(PREFIX).partition(_INSIDE)
        else:
            folder, name = self.path, Path(os.path.relpath(text, self.root or '.')).as_posix()
        return _opened(folder).read(name)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """Return the content of a text file; the errors are those of :meth:`get`."""
        return self.get(filepath).decode(encoding)
