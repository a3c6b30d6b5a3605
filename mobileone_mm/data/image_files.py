"""The suffixes of image files, the same for class folders, packs, predictions and test sets.

The hosts have other lists: mmpretrain's lacks .webp, .tiff and .jfif, and leaves such files out
without a message.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from mmengine.logging import print_log

from ..errors import few

#: what OpenCV, the decoder of the configs, reads; compared in lower case
IMAGE_SUFFIXES = (
    '.avif', '.bmp', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.mpo', '.pbm', '.pgm', '.png',
    '.pnm', '.ppm', '.tif', '.tiff', '.webp',
)  # fmt: skip
# Files that are usual beside images.
_SIDE_SUFFIXES = (
    '.cache', '.cfg', '.csv', '.db', '.htm', '.html', '.ini', '.ipynb', '.json', '.jsonl', '.lock',
    '.log', '.lst', '.md', '.md5', '.names', '.pdf', '.py', '.rst', '.sh', '.sha256', '.toml', '.tsv',
    '.txt', '.url', '.xls', '.xlsx', '.xml', '.yaml', '.yml',
)  # fmt: skip
_SIDE_NAMES = (
    'authors', 'changelog', 'checksums', 'copying', 'licence', 'license', 'makefile', 'md5sums',
    'notice', 'readme', 'sha1sums', 'sha256sums',
)  # fmt: skip
# A complete listing of ImageNet on a network drive takes minutes.
MAX_LISTED = 50_000
_SHOWN = 5
_BROKEN = 'broken links'


def is_image(name: str) -> bool:
    """Return whether a file name has the suffix of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_usual(name: str) -> bool:
    """Return whether a file is usual beside images, such as ``.txt`` and ``.json``, or hidden."""
    suffix = PurePath(name).suffix.lower()
    named = not suffix and name.lower() in _SIDE_NAMES
    return suffix in _SIDE_SUFFIXES or named or name.startswith('.')


def is_broken(entry: os.DirEntry[str] | Path) -> bool:
    """Return whether an entry of a folder is a symbolic link whose target does not exist."""
    return entry.is_symlink() and not entry.is_file() and not entry.is_dir()


class OtherFiles(Counter[str]):
    """Counts files that a folder of images has and nobody reads, by suffix, and broken links.

    Hidden files and those that are usual beside images, such as ``.txt`` and ``.json``, do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    def add(self, name: str, is_broken: bool = False) -> None:
        """Count a file or a broken link that is not read, if it counts."""
        if is_usual(name):
            return
        self[_BROKEN if is_broken else PurePath(name).suffix] += 1
        if is_broken:
            self.broken.append(name)

    def __str__(self) -> str:
        """Such as ``3 .heic, 1 without a suffix``, the most frequent first."""
        ranked = sorted(self.items(), key=lambda item: (-item[1], item[0].lower()))
        parts = [f'{count} {suffix or "without a suffix"}' for suffix, count in ranked[:_SHOWN]]
        more = len(self) - len(parts)
        text = ', '.join([*parts, *([f'and {more} other kinds'] if more else [])])
        return text + (f' (broken: {few(sorted(self.broken))})' if self.broken else '')

    def warn(self, where: str, images: str = '', listed: int = 0) -> None:
        """Log one warning if there are such files.

        ``images`` are the suffixes of the files that are read. ``listed`` is the number of files that
        were looked at; beyond ``MAX_LISTED`` there may be more.
        """
        if self:
            of = f' of the first {listed}' if listed >= MAX_LISTED else ''
            images = images or ', '.join(IMAGE_SUFFIXES)
            text = f'{where}: {self.total()}{of} files are left out: {self}'
            if self.total() > len(self.broken):
                text += f'; images end in {images}; convert or rename the others if they are images'
            if self.broken:
                text += '; repair or remove the broken links'
            print_log(text, 'current', logging.WARNING)


def search(
    folder: str | os.PathLike[str],
    is_image: Callable[[str], bool],
    others: OtherFiles,
    limit: int = MAX_LISTED,
    is_known: Callable[[str], bool] | None = None,
) -> tuple[bool, int]:
    """Count the other files of a folder at any depth, except known ones; list about ``limit`` files.

    Beyond the limit, the search continues up to the first image. Returns whether there is one, and how
    many files were listed. As in mmengine, hidden files are left out, and hidden folders are not.
    """
    found, listed = False, 0
    for listed, (name, broken) in enumerate(_files(folder), 1):
        if broken:
            others.add(name, broken)
        elif is_image(name):
            found = True
        elif is_known is None or not is_known(name):
            others.add(name)
        if found and listed >= limit:
            break
    return found, listed


def _files(folder: str | os.PathLike[str]) -> Iterator[tuple[str, bool]]:
    """Yield the names of the files at any depth, and whether they are broken links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            elif not entry.name.startswith('.'):
                yield entry.name, is_broken(entry)
