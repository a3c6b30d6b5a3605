"""Which images the user means, and what their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from ..errors import InputError

SUFFIXES = frozenset(['.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'])
T = TypeVar('T')


def with_progress(items: Collection[T], title: str) -> Iterator[T]:
    """The items one by one, with a bar on a terminal (standard error); none elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    yield from track(items, title, total=len(items), console=console, disable=hidden)


def find_images(
    inputs: Sequence[str],
    leave_out: Sequence[str | os.PathLike[str]] = (),
    argument: str = 'INPUT',
) -> list[Path]:
    """The images that files, folders and patterns stand for, each once, in a fixed order.

    Folders are searched with all folders below them, for the usual suffixes; what begins with a dot
    is left out. In patterns ``**`` stands for any folders. The order is that of the inputs, and by
    name within each.

    Args:
        inputs: Files, folders and patterns.
        leave_out: Folders that are not searched: where the results of an earlier call are. An image
            in them that is named itself counts all the same.
        argument: Name of the argument, for the message.

    Raises:
        InputError: One of them stands for no image.
    """
    found: dict[Path, None] = {}
    hidden = {Path(folder).resolve() for folder in leave_out}
    for entry in inputs:
        named = Path(entry).expanduser().is_file()
        images = [f for f in _of_input(entry) if named or hidden.isdisjoint(f.resolve().parents)]
        if not images:
            raise InputError(f"{argument} '{entry}': {_why_none(entry)}")
        found.update(dict.fromkeys(images))
    return list(found)


def _of_input(entry: str) -> Iterable[Path]:
    path = Path(entry).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _in_folder(path)
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [match for match in matches if match.is_file() and match.suffix.lower() in SUFFIXES]
    # A pattern that names folders means their images, as the folder itself does.
    return files or [file for match in matches if match.is_dir() for file in _in_folder(match)]


def _in_folder(folder: Path) -> list[Path]:
    files = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        files += [
            Path(base, name)
            for name in sorted(names)
            if not name.startswith('.') and Path(name).suffix.lower() in SUFFIXES
        ]
    return files


def _why_none(entry: str) -> str:
    if Path(entry).expanduser().is_dir():
        return f'the folder has no images ({", ".join(sorted(SUFFIXES))})'
    if glob.has_magic(entry):
        return 'the pattern matches no image'
    return 'no such file or folder'


def result_names(images: Sequence[Path]) -> list[PurePath]:
    """Relative names for the results of images, no two the same.

    An image keeps its name, below the folders that tell it from an image of the same name
    elsewhere: with ``a/1.jpg`` and ``b/1.jpg`` that is both paths, with ``a/1.jpg`` and ``b/2.jpg``
    ``1.jpg`` and ``2.jpg``.
    """
    absolute = [Path(os.path.abspath(image)) for image in images]
    # Some file systems take names that differ in case alone for the same.
    names = Counter(path.name.casefold() for path in absolute)
    if all(count == 1 for count in names.values()):
        return [PurePath(path.name) for path in absolute]
    paths = Counter(str(path).casefold() for path in absolute)
    try:
        common = Path(os.path.commonpath([path.parent for path in absolute]))
    except ValueError:  # on two drives
        common = None
    if common is None or any(count > 1 for count in paths.values()):
        width = len(str(len(absolute)))
        return [PurePath(f'{n:0{width}d}_{path.name}') for n, path in enumerate(absolute, 1)]
    return [PurePath(path.relative_to(common)) for path in absolute]


def with_suffix(names: Sequence[PurePath], suffix: str) -> list[PurePath]:
    """The names with another suffix; the old one stays in it where two would be the same."""
    stems = Counter(name.with_suffix('') for name in names)
    return [
        name.with_suffix(suffix) if stems[name.with_suffix('')] == 1
        else name.with_name(name.name + suffix)
        for name in names
    ]  # fmt: skip
