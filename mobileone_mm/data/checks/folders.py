"""Check folders of images that no list names: class folders, and files that are left out."""

import logging
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path, PurePath

from mmengine.logging import print_log

from ...errors import InputError, few
from ..image_files import MAX_LISTED, OtherFiles, is_broken, search

# Names of parts of a dataset, in lower case.
_SPLITS = ('test', 'testing', 'train', 'training', 'val', 'valid', 'validation')


def class_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, in the order in which mmpretrain numbers them."""
    return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))


def empty_folders(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the names of the class folders that hold nothing."""
    return [name for name in names if not any(os.scandir(folder / name))]


def refuse_strays(where: str, folder: Path, names: Sequence[str]) -> None:
    """Raise an InputError for folders of other programs, which mmpretrain numbers as classes."""
    if strays := [name for name in names if name.startswith('.') or name == '__MACOSX']:
        raise InputError(
            f"{where}: '{folder}' has the folders {few(strays)}, which mmpretrain would number as "
            'classes; remove them'
        )


def refuse_splits(where: str, folder: Path, names: Sequence[str]) -> None:
    """Raise an InputError if the folders of a folder are splits that hold the class folders.

    A class may be called ``train``: that is a split if it holds folders, and at least half of the
    folders beside it are such splits.
    """
    splits = [name for name in names if name.lower() in _SPLITS and class_folders(folder / name)]
    if splits and 2 * len(splits) >= len(names):
        raise InputError(
            f"{where}: '{folder}' has the folders {', '.join(names)}, which are parts of a dataset and "
            f"no classes; give one of them, such as '{folder / splits[0]}'"
        )


def check_folder(
    where: str, folder: Path, endings: tuple[str, ...], names: Sequence[str] | None
) -> set[int]:
    """Check that a folder has images, and log the files that mmpretrain leaves out.

    Returns the numbers of the class folders with an image.

    ``names`` are the class folders; without classes, all images count. ``endings`` are the suffixes of
    images in lower case. Empty class folders are logged, because they keep their numbers.
    """

    def is_image(name: str) -> bool:
        return name.lower().endswith(endings)

    others, empty, listed = OtherFiles(), [], 0
    if names is not None:
        if not names:
            raise InputError(f"{where}: '{folder}' has no class folders, and there is no ann_file")
        refuse_strays(where, folder, names)
        refuse_splits(where, folder, names)
        _log_outside(where, folder, is_image)
        for entry in filter(is_broken, os.scandir(folder)):  # may be a class
            others.add(entry.name, is_broken=True)
    parts = [folder] if names is None else [folder / name for name in names]
    limit = max(1, MAX_LISTED // len(parts))
    for part in parts:
        found, number = search(part, is_image, others, limit)
        listed += number
        if not found:
            empty.append(part.name)
    shown = ', '.join(sorted(endings))
    if len(empty) == len(parts):
        which = '' if names is None else 'no class folder of '
        has = f'; it has {others}' if others else ''
        what = 'has no image' if names is None else 'has an image'
        raise InputError(f"{where}: the dataset is empty: {which}'{folder}' {what} ({shown}){has}")
    if empty:
        text = f"{where}: class folders of '{folder}' without an image: {few(empty)}"
        print_log(f'{text}; they keep their numbers.', 'current', logging.WARNING)
    others.warn(f"{where}: '{folder}'", shown, listed)
    return {number for number, name in enumerate(names or ()) if name not in empty}


def _log_outside(where: str, folder: Path, is_image: Callable[[str], bool]) -> None:
    """Log how many images lie beside the class folders, because they have no class."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in islice(entries, MAX_LISTED) if not entry.is_dir())
        count = sum(is_image(name) and not name.startswith('.') for name in names)
    if count:
        text = f"{where}: {count} images lie in '{folder}' itself, and not in a class folder"
        print_log(f'{text}; they are left out.', 'current', logging.WARNING)


def check_suffix(
    where: str, images: Path, suffix: str, masks: Path | None, mask_suffix: str
) -> None:
    """Check that a folder has images of mmseg's ``img_suffix``, and log files of other suffixes.

    mmseg distinguishes upper and lower case. Files of the same suffix with another end of the name, and
    masks beside their images, are no fault.
    """
    others, kind = OtherFiles(), PurePath(f'a{suffix}').suffix
    shared = masks is not None and (masks == images or images in masks.parents)

    def is_known(name: str) -> bool:
        return name.endswith(kind) or (shared and name.endswith(mask_suffix))

    found, listed = search(images, lambda name: name.endswith(suffix), others, is_known=is_known)
    if not found:
        has = f'; it has {others}' if others else ''
        raise InputError(
            f"{where}: the dataset is empty: no *{suffix} (img_suffix) below '{images}'{has}"
        )
    others.warn(f"{where}: '{images}'", f'{suffix} (img_suffix)', listed)
