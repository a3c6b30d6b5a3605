"""Paint masks of VOC's classes from COCO's instances: more images for VOC segmentation.

No host has such a dataset; mmseg's COCO-Stuff has other labels. The masks are palette PNGs, which
mmseg's ``PascalVOCDataset`` reads and an image viewer shows.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError, check_least
from ...faults import any_fault
from ...files import atomic_text, atomic_write, path_below
from ..coco import read_coco

#: COCO's names of VOC's classes, in VOC's order from 1
COCO_NAMES = (
    'airplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'dining table', 'dog', 'horse', 'motorcycle', 'person', 'potted plant', 'sheep', 'couch',
    'train', 'tv',
)  # fmt: skip
IGNORE = 255


def voc_palette() -> list[int]:
    """Return VOC's 256 colors as 768 numbers: the bits of an index, distributed over R, G and B."""
    bits = (np.arange(256)[:, None] >> np.arange(9)) & 1
    return (bits.reshape(256, 3, 3) * [[128], [64], [32]]).sum(axis=1).ravel().tolist()


def write_voc_masks(
    annotations: str | Path, folder: str | Path, min_pixels: int = 1000
) -> tuple[int, int]:
    """Write ``FOLDER/NAME.png`` for each image with enough of VOC's classes, and ``FOLDER.txt``.

    The list of names is written last, so an interrupted run leaves no list and can be repeated.

    ``annotations`` is a COCO-format file with segmentations. Images with at most ``min_pixels``
    pixels of VOC's 20 classes are left out; 1000 as in torchvision and CVNets.

    Returns the number of masks, and the number of images in the file.
    """
    check_least(0, min_pixels=min_pixels)
    source, out = Path(annotations), Path(folder)
    table = read_coco(source, 'annotations')
    table.check_references()
    names, palette = [], voc_palette()
    _check_names(table, out, f"annotations: '{source}'")
    for name, mask in _masks(table, f"annotations: '{source}'"):
        if np.count_nonzero((mask > 0) & (mask != IGNORE)) > min_pixels:
            names.append(_mask_name(name).removesuffix('.png'))
            png = Image.fromarray(mask)
            png.putpalette(palette)
            atomic_write(out / _mask_name(name), partial(png.save, format='PNG', optimize=True))
    if not names:
        raise InputError(
            f"annotations: no image of '{source}' has more than {min_pixels} pixels of VOC's "
            'classes; use a lower --min-pixels'
        )
    atomic_text(out.with_name(f'{out.name}.txt'), '\n'.join(names) + '\n')
    return len(names), len(table['images'])


def _mask_name(name: str) -> str:
    return Path(name).with_suffix('.png').as_posix()


def _check_names(table: Mapping[str, Any], out: Path, where: str) -> None:
    """Check that each image has a mask of its own, inside the folder of the masks."""
    owners: dict[Path, str] = {}
    for index, image in enumerate(table['images']):
        name, argument = image['file_name'], f'{where}: images[{index}].file_name'
        path = path_below(out, name, argument).with_suffix('.png')
        if path in owners:
            raise InputError(
                f"{argument}: got '{name}'; '{owners[path]}' has the same mask; rename one of them"
            )
        owners[path] = name


def _masks(table: Mapping[str, Any], where: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the file name and the mask of each image."""
    numbers = {name: number for number, name in enumerate(COCO_NAMES, 1)}
    names = {row['id']: row['name'].strip().lower() for row in table['categories']}
    labels = {one: numbers[name] for one, name in names.items() if name in numbers}
    if not labels:
        raise InputError(f"{where} has none of COCO's names of VOC's classes")
    rows = defaultdict(list)
    for row in table['annotations']:
        rows[row['image_id']].append(row)
    for done, image in enumerate(table['images']):
        if done and done % 1000 == 0:
            print(f'{done}/{len(table["images"])} images', flush=True)
        name = image['file_name']
        try:
            shape = round(image['height']), round(image['width'])
            mask = paint_voc_mask(shape, rows[image['id']], labels)
        except ValueError as error:
            raise InputError(
                f"{where}: the segmentations of image '{name}' cannot be read ({error}); expected "
                'polygons or RLE'
            ) from error
        yield name, mask


def paint_voc_mask(
    shape: tuple[int, int], rows: Sequence[Mapping[str, Any]], labels: Mapping[int, int]
) -> np.ndarray:
    """Paint the instances of an image: (height, width) of uint8.

    Pixels in instances of two classes are ignored (255), because COCO does not tell which one is in
    front. Crowds have rough outlines and are ignored where no instance is. All else is background,
    as are categories whose id has no class in ``labels``.
    """
    mask = np.zeros(shape, np.uint8)
    crowd = np.zeros(shape, bool)
    for row in rows:
        if row['category_id'] not in labels:
            continue
        try:
            inside, label = _pixels(row['segmentation'], *shape), labels[row['category_id']]
        except Exception as error:  # pycocotools raises plain exceptions
            raise ValueError(f'annotation {row["id"]}: {any_fault(error)}') from error
        if row.get('iscrowd'):
            crowd |= inside
        else:
            mask[inside] = np.where(np.isin(mask[inside], (0, label)), label, IGNORE)
    mask[crowd & (mask == 0)] = IGNORE
    return mask


def _pixels(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the pixels of polygons, or of RLE in one of COCO's two forms."""
    from pycocotools.coco import COCO

    if segmentation == []:
        return np.zeros((height, width), bool)
    _check_outline(segmentation, height, width)
    reader = COCO()
    reader.imgs[0] = {'height': height, 'width': width}
    pixels = reader.annToMask({'image_id': 0, 'segmentation': segmentation}).astype(bool)
    if pixels.shape != (height, width):
        raise ValueError(f'an RLE of {pixels.shape} in an image of {(height, width)}')
    return pixels


def _check_outline(segmentation: Any, height: int, width: int) -> None:
    """Raise a ValueError for what makes pycocotools write or read outside its memory."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            numbers = np.array(polygon, np.float64)
            if not (np.abs(numbers) <= 10 * max(height, width)).all():
                raise ValueError('a polygon has NaN, or lies far outside the image')
        return
    counts = segmentation['counts']
    if isinstance(counts, list) and (min(counts, default=0) < 0 or sum(counts) != height * width):
        raise ValueError(f'the counts of an RLE do not add up to {height * width} pixels')
