"""Images of single objects, cut out of a COCO-format dataset, as a folder for each class."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import InputError
from ...files import atomic_write

BY = ('category', 'supercategory')


def cut_objects(
    annotations: str | Path,
    images: str | Path,
    out: str | Path,
    by: str = 'category',
    min_size: int = 48,
    margin: float = 0.1,
    classes: tuple[str, ...] = (),
) -> dict[str, int]:
    """Write every annotated object as an image ``out/<class>/<image>_<annotation>.jpg``.

    Crowds are left out. Images keep their pixels (JPEG, quality 95).

    Args:
        annotations: COCO-format file with boxes.
        images: Folder of its images.
        out: Folder to write; must not exist or be empty.
        by: What the folders are named by, ``category`` or ``supercategory``.
        min_size: Least width and height of a box, in pixels.
        margin: How much of the box's size is added on each side, from 0.
        classes: Names to keep; all if empty.

    Returns:
        Number of images by class, the most frequent first.

    Raises:
        InputError: A file is missing or malformed, a name unknown, or ``out`` has something in it.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"out: '{folder}' exists and is not empty; choose another name")
    if by not in BY:
        raise InputError(f"--by: got '{by}'; {' or '.join(BY)} is allowed")
    if min_size < 1 or margin < 0:
        raise InputError(
            f'--min-size: got {min_size}, --margin: got {margin}; at least 1 and 0 are needed'
        )
    files, names, boxes = _read(Path(annotations), 'name' if by == 'category' else by)
    unknown = set(classes) - set(names.values())
    if unknown:
        known = ', '.join(sorted(set(names.values())))
        raise InputError(
            f'--classes: no {by} is named {", ".join(sorted(unknown))}; known: {known}'
        )
    counts: Counter[str] = Counter()
    for box in boxes:
        name = names[box['category_id']]
        x, y, width, height = box['bbox']
        if min(width, height) < min_size or box.get('iscrowd') or (classes and name not in classes):
            continue
        path = Path(images, files[box['image_id']])
        target = folder / name.replace('/', '_') / f'{path.stem}_{box["id"]}.jpg'
        _cut(path, (x, y, x + width, y + height), margin, target)
        counts[name] += 1
    if not counts:
        raise InputError(f"--min-size: no box of '{annotations}' is {min_size} px wide and high")
    return dict(counts.most_common())


def _read(path: Path, name: str) -> tuple[dict[int, str], dict[int, str], list[dict[str, Any]]]:
    """Files by image, names by category, and the boxes."""
    try:
        table = json.loads(path.read_text(encoding='utf-8'))
        files = {image['id']: image['file_name'] for image in table['images']}
        names = {kind['id']: kind[name] for kind in table['categories']}
        boxes = [
            dict(box, bbox=[float(number) for number in box['bbox']])
            for box in table['annotations']
            if box['image_id'] in files and box['category_id'] in names and len(box['bbox']) == 4
        ]
    except OSError as error:
        raise InputError(f"annotations: '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"annotations: '{path}' is no COCO file with boxes and {name}") from error
    return files, names, boxes


def _cut(path: Path, box: tuple[float, float, float, float], margin: float, target: Path) -> None:
    try:
        with Image.open(path) as opened:
            image = opened.convert('RGB')
    except OSError as error:
        raise InputError(f"images: '{path}' cannot be read; {error}") from error
    across, down = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    left, top = max(0, round(box[0] - across)), max(0, round(box[1] - down))
    right = min(image.width, round(box[2] + across))
    bottom = min(image.height, round(box[3] + down))
    crop = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    atomic_write(target, lambda file: crop.save(file, 'JPEG', quality=95))
