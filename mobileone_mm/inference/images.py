"""Find the images that a user names, and name their results."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TypeVar

from ..data.image_files import IMAGE_SUFFIXES, OtherFiles, is_broken, is_image, is_usual
from ..errors import InputError

T = TypeVar('T')


def with_progress(items: Collection[T], title: str) -> Iterator[T]:
    """Yield the items, with a progress bar if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, title, console=console, disable=not console.is_terminal)


def find_images(
    inputs: Sequence[str],
    leave_out: Sequence[str | os.PathLike[str]] = (),
    argument: str = 'INPUT',
) -> list[Path]:
    """Find the images of files, folders and patterns, each once, in the order of the inputs.

    Folders are searched with all folders below them, in the order of names, for ``IMAGE_SUFFIXES``;
    names that begin with a dot are skipped. In patterns ``**`` stands for any folders. A warning counts
    the files of other suffixes that folders and patterns have.

    ``leave_out`` are folders that are not searched, with the results of an earlier call. An image in
    them counts if it is an input itself. An InputError begins with ``argument`` and names an input
    without images.
    """
    found: dict[Path, None] = {}
    others: dict[Path, None] = {}
    hidden = {Path(folder).resolve() for folder in leave_out}
    for entry in inputs:
        path = Path(entry).expanduser()
        files = [path] if path.is_file() else [
            file for file in _search(path) if hidden.isdisjoint(file.resolve().parents)
        ]  # fmt: skip
        images = []
        for file in files:
            if not is_broken(file) and (file == path or is_image(file.name)):
                images.append(file)
            else:
                others[file] = None
        if not images:
            pattern = glob.has_magic(str(path))
            why = 'the pattern matches no image' if pattern else 'no such file or folder'
            if path.is_dir():
                why = f'the folder has no images ({", ".join(IMAGE_SUFFIXES)})'
            has = f', but {_counted(files)}' if files else ''
            raise InputError(f"{argument} '{entry}': {why}{has}")
        found.update(dict.fromkeys(images))
    _counted(others.keys() - found.keys()).warn(argument)
    return list(found)


def _counted(files: Iterable[Path]) -> OtherFiles:
    counted = OtherFiles()
    for file in files:
        counted.add(file.name, is_broken(file))
    return counted


def _search(path: Path) -> list[Path]:
    """Return the files of a folder or a pattern, without those that are usual beside images.

    A pattern that matches no image means the files of the folders that it matches.
    """
    found = [path] if path.is_dir() else map(Path, sorted(glob.glob(str(path), recursive=True)))
    matches = list(found)
    files = [match for match in matches if not match.is_dir()]
    if not any(is_image(file.name) for file in files):
        files += [
            file
            for folder in matches
            for file in sorted(folder.rglob('*'))
            if not any(part.startswith('.') for part in file.relative_to(folder).parts)
        ]
    wanted = (file for file in files if is_image(file.name) or not is_usual(file.name))
    return [file for file in wanted if file.is_file() or is_broken(file)]


def result_names(images: Sequence[Path]) -> list[PurePath]:
    """Return relative names for the results of images, no two the same.

    An image keeps its name. Where two have one name, the folders that differ come before it:
    ``a/1.jpg`` and ``b/1.jpg`` keep both parts, ``a/1.jpg`` and ``b/2.jpg`` become ``1.jpg`` and
    ``2.jpg``.
    """
    absolute = [Path(os.path.abspath(image)) for image in images]
    choices: list[list[PurePath]] = [[PurePath(path.name) for path in absolute]]
    with suppress(ValueError):  # on two drives
        common = os.path.commonpath([path.parent for path in absolute])
        choices.append([path.relative_to(common) for path in absolute])
    for names in choices:
        # Some file systems do not distinguish upper and lower case.
        if len({str(name).casefold() for name in names}) == len(names):
            return names
    width = len(str(len(absolute)))
    return [PurePath(f'{n:0{width}d}_{path.name}') for n, path in enumerate(absolute, 1)]


def with_suffix(names: Sequence[PurePath], suffix: str) -> list[PurePath]:
    """Return the names with another suffix, which is appended where two names would be the same."""
    stems = Counter(name.with_suffix('') for name in names)
    return [
        name.with_suffix(suffix) if stems[name.with_suffix('')] == 1
        else name.with_name(name.name + suffix)
        for name in names
    ]  # fmt: skip
