"""Cut the objects out of a COCO-format dataset: one folder of images for each class."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import InputError, check_least
from ...files import atomic_folder
from ..checks.image_sizes import check_sizes, sizes_of
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
    """Write objects, without crowds, as ``out/<class>/<image>_<annotation>.jpg`` (quality 95).

    Args:
        annotations: COCO-format file with boxes.
        images: Folder of its images.
        out: New or empty folder. After an error it is not written.
        by: The names of the folders, a key of ``BY``.
        min_size: Least width and height of a box, in pixels.
        margin: Share of the box's size that is added on each side, from 0.
        classes: Names to keep; all if empty.

    Returns the number of images by class, the most frequent first.
    """
    check_least(1, min_size=min_size)
    check_least(0, margin=margin)
    objects: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for file, name, row in _annotated(Path(annotations), Path(images), by, classes):
        if min(row['bbox'][2:]) >= min_size:
            objects[file].append((name, row))
    if not objects:
        raise InputError(f"--min-size: no box of '{annotations}' is {min_size} px wide and high")
    counts: Counter[str] = Counter()
    with atomic_folder(out, 'out') as folder:
        for file, rows in objects.items():
            path = Path(images, file)
            try:
                with Image.open(path) as opened:
                    image = opened.convert('RGB')
            except OSError as error:
                raise InputError(f"images: '{path}' cannot be read: {error}") from error
            for name, row in rows:
                target = folder / name.replace('/', '_') / f'{Path(file).stem}_{row["id"]}.jpg'
                target.parent.mkdir(exist_ok=True)
                _crop(image, row['bbox'], margin).save(target, 'JPEG', quality=95)
                counts[name] += 1
    return dict(counts.most_common())


def _annotated(
    path: Path, images: Path, by: str, classes: tuple[str, ...]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield file name, class name and annotation of each object of some classes."""
    if by not in BY:
        raise InputError(f"--by: got '{by}'; expected {' or '.join(BY)}")
    keys = {
        'images': ('id', 'file_name'),
        'annotations': ('id', 'image_id', 'category_id', 'bbox'),
        'categories': ('id', BY[by]),
    }
    table = read_coco(path, 'annotations', keys)
    files = {row['id']: row['file_name'] for row in table['images']}
    names = {row['id']: row[BY[by]] for row in table['categories']}
    known = sorted(set(names.values()))
    unknown = sorted(set(classes) - set(known))
    if unknown:
        raise InputError(
            f'--classes: no {by} is named {", ".join(unknown)}; known: {", ".join(known)}'
        )
    check_sizes(f"annotations: '{path}'", sizes_of(table['images'], images))
    for row in table['annotations']:
        name, file = names.get(row['category_id'], ''), files.get(row['image_id'])
        if name in (classes or known) and file and not row.get('iscrowd'):
            yield file, name, row


def _crop(image: Image.Image, bbox: list[float], margin: float) -> Image.Image:
    x, y, width, height = bbox
    left, top = max(0, round(x - margin * width)), max(0, round(y - margin * height))
    right = min(image.width, round(x + width + margin * width))
    bottom = min(image.height, round(y + height + margin * height))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
