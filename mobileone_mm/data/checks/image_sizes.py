"""Compare image headers with the annotated sizes before a run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from ...errors import InputError
from ..exif import DECODING_ERRORS, read_header
from ..lists import spread
from ..sizes import LARGEST_SHARE, size_fault

# 0.1 s on a local disk; the loader compares every image.
_MOST = 500
Sized = tuple[Path, int, int]  # file, annotated height and width


def sizes_of(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Sized]:
    """Return path, height and width of at most 500 evenly spaced images that have a size there."""
    chosen = spread(rows, _MOST)
    sizes = [(folder / row['file_name'], row.get('height'), row.get('width')) for row in chosen]
    return [row for row in sizes if all(type(side) in (int, float) for side in row[1:])]  # type: ignore[misc]


def check_sizes(where: str, images: Sequence[Sized], turns_by_exif: bool = True) -> None:
    """Compare the headers of images with their annotated sizes.

    More than 1 % of another size are an InputError, fewer a warning: each names the first image and
    the likely cause. Files without a readable header are left to the loader.

    Args:
        where: The dataset or file, at the start of the message.
        images: Files with their annotated height and width.
        turns_by_exif: Whether the loader turns the images by their EXIF orientation.
    """
    faults, seen = [], 0
    for path, height, width in images:
        try:
            header = read_header(path, turns_by_exif)
        except DECODING_ERRORS:
            continue
        seen += 1
        if fault := size_fault(str(path), (height, width), header[:2], header.orientation):
            faults.append(fault)
    if not faults:
        return
    text = (
        f'{where}: {len(faults)} of {seen} compared images have another size than their annotation, '
        f'the first: {faults[0].text}; {faults[0].advice}'
    )
    if len(faults) > LARGEST_SHARE * seen:
        raise InputError(text)
    print_log(text, 'current', logging.WARNING)
