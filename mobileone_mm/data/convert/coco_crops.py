"""Cut the objects out of a COCO-format dataset: one folder of images for each class."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import InputError
from ...files import atomic_folder
from ..coco import read_coco

BY = {'category': 'name', 'supercategory': 'supercategory'}


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

    Crowds are left out. The pixels are not resized (JPEG, quality 95).

    Args:
        annotations: COCO-format file with boxes.
        images: Folder of its images.
        out: New or empty folder.
        by: The names of the folders, ``category`` or ``supercategory``.
        min_size: Least width and height of a box, in pixels.
        margin: Share of the box's size that is added on each side, from 0.
        classes: Names to keep; all if empty.

    Returns:
        Number of images by class, the most frequent first.

    Raises:
        InputError: A file is missing or malformed, a name is unknown, or ``out`` is not empty.
            ``out`` is not written then.
    """
    if by not in BY:
        raise InputError(f"--by: got '{by}'; expected {' or '.join(BY)}")
    if min_size < 1 or margin < 0:
        raise InputError(
            f'--min-size: got {min_size}, --margin: got {margin}; expected at least 1 and 0'
        )
    keys = {
        'images': ('id', 'file_name'),
        'annotations': ('id', 'image_id', 'category_id', 'bbox'),
        'categories': ('id', BY[by]),
    }
    table = read_coco(Path(annotations), 'annotations', keys)
    files = {row['id']: row['file_name'] for row in table['images']}
    names = {row['id']: row[BY[by]] for row in table['categories']}
    unknown = set(classes) - set(names.values())
    if unknown:
        raise InputError(
            f'--classes: no {by} is named {", ".join(sorted(unknown))}; '
            f'known: {", ".join(sorted(set(names.values())))}'
        )
    boxes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table['annotations']:
        name = names.get(row['category_id'])
        kept = name is not None and row['image_id'] in files and not row.get('iscrowd')
        if kept and min(row['bbox'][2:]) >= min_size and (not classes or name in classes):
            boxes[files[row['image_id']]].append(row)
    if not boxes:
        raise InputError(f"--min-size: no box of '{annotations}' is {min_size} px wide and high")
    counts: Counter[str] = Counter()
    with atomic_folder(out, 'out') as folder:
        for file, rows in boxes.items():
            image = _read(Path(images, file))
            for row in rows:
                name = names[row['category_id']]
                target = folder / name.replace('/', '_') / f'{Path(file).stem}_{row["id"]}.jpg'
                target.parent.mkdir(exist_ok=True)
                _crop(image, row['bbox'], margin).save(target, 'JPEG', quality=95)
                counts[name] += 1
    return dict(counts.most_common())


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert('RGB')
    except OSError as error:
        raise InputError(f"images: '{path}' cannot be read: {error}") from error


def _crop(image: Image.Image, bbox: list[float], margin: float) -> Image.Image:
    x, y, width, height = bbox
    left, top = max(0, round(x - margin * width)), max(0, round(y - margin * height))
    right = min(image.width, round(x + width + margin * width))
    bottom = min(image.height, round(y + height + margin * height))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
