"""Where the published test sets keep their images, and which label each has.

mmpretrain numbers folders in alphabetical order. That is wrong for all sets of 200 classes, for a
set that is not complete, and for ImageNetV2, whose folders are named 0 to 999 (10 comes before 2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import InputError
from .corruptions import GROUPS

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Layout:
    """How a published set is stored.

    Attributes:
        title: The set's name.
        folders: Names of its folder, as its archives unpack it or people call it, in lower case.
        classes: How many classes it has; with 200, predictions are limited to them.
    """

    title: str
    folders: tuple[str, ...]
    classes: int = 1000


LAYOUTS = {
    'c': Layout('ImageNet-C', ('imagenet-c', 'imagenet_c', 'imagenetc')),
    'a': Layout('ImageNet-A', ('imagenet-a', 'imagenet_a'), 200),
    'r': Layout('ImageNet-R', ('imagenet-r', 'imagenet_r'), 200),
    'sketch': Layout('ImageNet-Sketch', ('sketch', 'imagenet-sketch', 'imagenet_sketch')),
    'v2': Layout(
        'ImageNetV2',
        (
            'imagenetv2-matched-frequency-format-val',
            'imagenetv2-matched-frequency',
            'imagenetv2',
            'imagenet-v2',
        ),
    ),
}


@dataclass(frozen=True)
class Images:
    """Images with labels.

    Attributes:
        files: Paths.
        labels: Numbers of ImageNet's 1000 classes, from 0.
        names: The files' names below the set's folder.
        limit: Predictions are limited to these classes; None for all.
    """

    files: tuple[str, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    limit: tuple[int, ...] | None = None


@cache
def wnids() -> tuple[str, ...]:
    """WordNet numbers of ImageNet's 1000 classes in the order of their labels."""
    text = Path(__file__).with_name('wnids.txt').read_text(encoding='ascii')
    return tuple(text.split())


@cache
def _labels() -> dict[str, int]:
    return {wnid: label for label, wnid in enumerate(wnids())}


def find_sets(root: str | Path) -> dict[str, Path]:
    """The published sets below a folder, by key of :data:`LAYOUTS`.

    Raises:
        InputError: It is no folder, or holds none of them.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"--root: '{root}' is no folder; give the one that holds the datasets")
    entries = {entry.name.lower(): Path(entry) for entry in os.scandir(root) if entry.is_dir()}
    found = {
        key: next(entries[name] for name in layout.folders if name in entries)
        for key, layout in LAYOUTS.items()
        if set(layout.folders) & set(entries)
    }
    if not found:
        names = ', '.join(layout.folders[0] for layout in LAYOUTS.values())
        raise InputError(
            f"--root: '{root}' holds none of {names}; name a folder with --sets, such as "
            'a=/data/natural-adversarial'
        )
    return found


def corruption_folder(root: Path, corruption: str, severity: int) -> Path:
    """Folder of one corruption and severity of ImageNet-C, below its group's folder or the root.

    Raises:
        InputError: There is none.
    """
    group = next(group for group, names in GROUPS.items() if corruption in names)
    part = Path(corruption, str(severity))
    for folder in (root / group / part, root / part):
        if folder.is_dir():
            return folder
    raise InputError(
        f"ImageNet-C: '{root / group / part}' does not exist; unpack {group}.tar there, or leave it "
        'out (--corruptions, --severities)'
    )


def class_folders(key: str, folder: Path) -> tuple[Path, dict[str, int]]:
    """The class folders of one set, or of one corruption and severity of ImageNet-C.

    Args:
        key: Key of :data:`LAYOUTS`.
        folder: With a folder for each class, or with one that has them.

    Returns:
        The folder that has them; names and labels.

    Raises:
        InputError: A class is unknown; or a set of 200 classes has another number of them, so that
            predictions cannot be limited to the right ones.
    """
    layout = LAYOUTS[key]
    if not folder.is_dir():
        raise InputError(f"{layout.title}: '{folder}' is no folder; check the path")
    for inner in (folder / folder.name, folder / layout.folders[0]):
        # An archive that was unpacked into a folder of the set's name.
        if inner.name.lower() in layout.folders and inner.is_dir():
            folder = inner
            break
    classes = {entry.name: _label(layout, folder, entry.name, key == 'v2')
               for entry in os.scandir(folder)
               if entry.is_dir() and not entry.name.startswith('.')}  # fmt: skip
    if layout.classes != 1000 and len(classes) != layout.classes:
        raise InputError(
            f"{layout.title}: '{folder}' has {len(classes)} class folders, the set has "
            f'{layout.classes}; predictions are limited to its classes, so all of them are needed'
        )
    return folder, classes


def read_set(key: str, folder: Path) -> Images:
    """List the images of one set, or of one corruption and severity of ImageNet-C.

    Args:
        key: Key of :data:`LAYOUTS`.
        folder: See :func:`class_folders`.

    Raises:
        InputError: There is no image, or see :func:`class_folders`.
    """
    layout = LAYOUTS[key]
    folder, classes = class_folders(key, folder)
    rows = sorted(
        (classes[name], f'{name}/{file}') for name in classes for file in _images(folder / name)
    )
    if not rows:
        raise InputError(f"{layout.title}: no image in class folders below '{folder}'")
    return Images(
        files=tuple(str(folder / name) for _, name in rows),
        labels=tuple(label for label, _ in rows),
        names=tuple(name for _, name in rows),
        limit=tuple(sorted(classes.values())) if layout.classes != 1000 else None,
    )


def _label(layout: Layout, folder: Path, name: str, numbered: bool) -> int:
    if numbered and name.isdecimal() and int(name) < 1000:
        return int(name)
    label = _labels().get(name)
    if label is None:
        kinds = 'numbers 0 to 999 or WordNet numbers' if numbered else 'WordNet numbers'
        raise InputError(
            f"{layout.title}: the folder '{name}' in '{folder}' is no class of ImageNet-1k; {kinds} "
            'such as n01440764 are needed'
        )
    return label


def _images(folder: Path) -> Iterable[str]:
    return (
        entry.name
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith('.')
    )
