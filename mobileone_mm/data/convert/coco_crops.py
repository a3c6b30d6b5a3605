"""Cut the objects out of a COCO-format dataset: one folder of images for each class."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError, check_least, several
from ...faults import any_fault
from ...files import atomic_folder, disk_is_full, file_name
from ..checks.coco_boxes import are_corners
from ..checks.coco_file import check_image_names
from ..checks.image_sizes import check_sizes, sizes_of
from ..coco import CocoFile, read_coco
from ..encoding import encode_image
from ..loading import read_image

BY = {'category': 'name', 'supercategory': 'supercategory'}


class Crops(NamedTuple):
    """What was written, and what was not."""

    counts: dict[str, int]  # images by class, the most frequent first
    folders: dict[str, str]  # by class
    unreadable: list[str]  # images that cannot be read, with the reasons
    uncut: list[str]  # boxes that cannot be cut or written, with the reasons

    def __str__(self) -> str:
        lines = [f'{name:<16}{count}' for name, count in self.counts.items()]
        lines += [
            f"the folder of class {name!r} is '{folder}'"
            for name, folder in self.folders.items()
            if name != folder and name in self.counts
        ]
        for what, reasons in (('images', self.unreadable), ('boxes', self.uncut)):
            if reasons:
                lines.append(f'{len(reasons)} {what} are left out: {several(reasons)}')
        return '\n'.join(lines)


def cut_objects(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    by: str = 'category',
    min_size: int = 48,
    margin: float = 0.1,
    classes: tuple[str, ...] = (),
) -> Crops:
    """Write objects, without crowds, as ``out/<class>/<image>_<annotation>.jpg`` (quality 95).

    The names of folders and files are made from the names of classes and images by
    :func:`~mobileone_mm.files.file_name`. Images are loaded as in a training, which turns them by their
    EXIF data. Images that cannot be read and boxes that cannot be cut are left out; InputError if
    nothing remains.

    Args:
        annotations: COCO-format file with boxes.
        images: Folder of its images.
        out: New or empty folder. After an error it is not written.
        by: The names of the folders, a key of ``BY``.
        min_size: Least width and height of a box, in pixels.
        margin: Share of the box's size that is added on each side, from 0.
        classes: Names to keep; all if empty.
    """
    check_least(1, min_size=min_size)
    check_least(0, margin=margin)
    objects: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    table = _table(Path(annotations), by)
    check_image_names(table, images)
    check_sizes(table.where, sizes_of(table['images'], Path(images)))
    for file, name, row in _annotated(table, by, classes):
        if min(row['bbox'][2:]) >= min_size:
            objects[file].append((name, row))
    if not objects:
        raise InputError(
            f"--min-size: no box of '{annotations}' that is no crowd is {min_size} px wide and high"
        )
    counts: Counter[str] = Counter()
    taken: dict[str, set[str]] = defaultdict(set)
    shapes: list[tuple[int, ...]] = []  # box, width and height of its image
    found = Crops({}, _folders(row[BY[by]] for row in table['categories']), [], [])
    with atomic_folder(out, 'out') as folder:
        for file, rows in objects.items():
            try:
                image = read_image(str(Path(images, file)))
            except InputError as error:
                found.unreadable.append(str(error))
                continue
            for name, row in rows:
                shapes.append((*row['bbox'], image.shape[1], image.shape[0]))
                stem = file_name(f'{Path(file).stem}_{row["id"]}', taken[name])
                target = folder / found.folders[name] / f'{stem}.jpg'
                if fault := _write_crop(image, row['bbox'], margin, target):
                    found.uncut.append(f"annotation {row['id']} of '{file}': {fault}")
                else:
                    counts[name] += 1
        sizes = np.array(shapes, np.float64).reshape(-1, 6)
        if are_corners(sizes[:, :4], *sizes[:, 4:].T):
            raise InputError(f'{table.where}: bbox is x1, y1, x2, y2; expected x, y, width, height')
        if not counts:
            reasons = found.unreadable + found.uncut
            raise InputError(f'images: no object could be cut; {several(reasons)}')
    return found._replace(counts=dict(counts.most_common()))


def _folders(names: Iterable[str]) -> dict[str, str]:
    """Return a folder for each class; a name that can stay as it is has precedence."""
    taken: set[str] = set()
    order = sorted(set(names), key=lambda name: (file_name(name, set()) != name, name))
    return {name: file_name(name, taken) for name in order}


def _table(path: Path, by: str) -> CocoFile:
    if by not in BY:
        raise InputError(f"--by: got '{by}'; expected {' or '.join(BY)}")
    keys = {
        'images': ('id', 'file_name'),
        'annotations': ('id', 'image_id', 'category_id', 'bbox'),
        'categories': ('id', BY[by]),
    }
    table = read_coco(path, 'annotations', keys)
    table.check_references()
    return table


def _annotated(
    table: dict[str, Any], by: str, classes: tuple[str, ...]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield file name, class name and annotation of each object of some classes."""
    files = {row['id']: row['file_name'] for row in table['images']}
    names = {row['id']: row[BY[by]] for row in table['categories']}
    known = sorted(set(names.values()))
    unknown = sorted(set(classes) - set(known))
    if unknown:
        raise InputError(
            f'--classes: no {by} is named {", ".join(unknown)}; known: {", ".join(known)}'
        )
    for row in table['annotations']:
        name = names[row['category_id']]
        if name in (classes or known) and not row.get('iscrowd'):
            yield files[row['image_id']], name, row


def _write_crop(image: np.ndarray, bbox: list[float], margin: float, target: Path) -> str | None:
    """Write a box as an image; return why it cannot be done, or None."""
    try:
        content = encode_image(_crop(image, bbox, margin), target.suffix)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    except (InputError, OSError) as error:
        if disk_is_full(error):
            raise
        with suppress(OSError):
            target.unlink(missing_ok=True)
        return any_fault(error)
    return None


def _crop(image: np.ndarray, bbox: list[float], margin: float) -> np.ndarray:
    """Cut a box with its margin out of an image; InputError for a box without a pixel of the image."""
    x, y, width, height = bbox
    dx, dy = margin * width, margin * height
    # A box may end beyond the image, and JSON can hold NaN and Infinity.
    corners = np.nan_to_num([x - dx, y - dy, x + width + dx, y + height + dy], nan=-1)
    left, top, right, bottom = (
        int(value) for value in corners.round().clip(0, [*image.shape[1::-1]] * 2)
    )
    cut = image[top:bottom, left:right]
    if not cut.size:
        size = f'{image.shape[1]} x {image.shape[0]}'
        raise InputError(f'the box {bbox} has no pixel of the image of {size} px')
    return cut
