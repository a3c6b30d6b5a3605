"""A file backend of mmengine that reads single files out of packed datasets."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend

from .packs import Pack, open_pack

PREFIX = 'packed'
_INSIDE = '!/'


def address(folder: str | os.PathLike[str], name: str = '') -> str:
    """Where an image is, for mmengine's file functions: ``packed://FOLDER!/NAME``."""
    return f'{PREFIX}://{os.fspath(folder)}{_INSIDE}{name}'


@register_backend('mobileone_mm.packed', prefixes=PREFIX)
class PackedBackend(BaseStorageBackend):
    """Reads files out of tar shards or an LMDB.

    Addresses made by :func:`address` need no arguments. A dataset that knows its images by their
    paths (COCO's, VOC's) finds them with ``backend_args`` of its loading transform::

        dict(type='mobileone_mm.LoadImage', backend_args=dict(
            backend='mobileone_mm.packed', path='coco_train.lmdb', root='data/coco/train2017'))

    Args:
        path: Folder of the packed dataset.
        root: The folder that was packed; names in it are relative to this. It need not exist.

    Raises:
        InputError: ``path`` is no packed dataset.
    """

    def __init__(self, path: str = '', root: str = '') -> None:
        self._packs: dict[str, Pack] = {}
        self.path = path
        self.root = root
        if path:
            self._pack(path)

    def get(self, filepath: str | Path) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: It is not in the packed dataset.
            OSError: It cannot be read.
        """
        text = str(filepath)
        if text.startswith(f'{PREFIX}://'):
            folder, _, name = text[len(PREFIX) + 3 :].partition(_INSIDE)
        else:
            folder, name = self.path, Path(os.path.relpath(text, self.root or '.')).as_posix()
        return self._pack(folder).read(name)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The content of a text file; errors are those of :meth:`get`."""
        return self.get(filepath).decode(encoding)

    def _pack(self, folder: str) -> Pack:
        # open_pack asks the file system where links lead, too much for every image.
        if folder not in self._packs:
            self._packs[folder] = open_pack(folder)
        return self._packs[folder]
