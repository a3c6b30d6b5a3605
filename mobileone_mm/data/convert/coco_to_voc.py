"""Masks of VOC's classes, painted from COCO's instances: more images for VOC segmentation.

No host has such a dataset; mmseg's COCO-Stuff has other labels. Masks are written once, as palette
PNGs that can be looked at, and mmseg's own ``PascalVOCDataset`` reads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.generator.vocabulary import voc_palette

from ...errors import InputError
from ...files import atomic_text, atomic_write
from ..checks.coco import read_coco

#: COCO's names of VOC's classes, in VOC's order from 1 on
COCO_NAMES = (
    'airplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'dining table', 'dog', 'horse', 'motorcycle', 'person', 'potted plant', 'sheep', 'couch',
    'train', 'tv',
)  # fmt: skip
IGNORE = 255


def write_voc_masks(
    annotations: str | Path,
    folder: str | Path,
    min_pixels: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Write ``FOLDER/NAME.png`` for each image with enough of VOC's classes, and ``FOLDER.txt``.

    The list of names comes last: a run that was broken off leaves none, and can be started again.

    Args:
        annotations: A file of COCO's form, with segmentations.
        folder: Where the masks go.
        min_pixels: Images with at most this many pixels of VOC's 20 classes are left out; 1000
            as in torchvision and CVNets.
        progress: Called with the number of images done and of all.

    Returns:
        How many masks were written, and how many images the file has.

    Raises:
        InputError: The file is not of COCO's form, or has none of the classes.
    """
    source, out = Path(annotations), Path(folder)
    if isinstance(min_pixels, bool) or min_pixels < 0:
        raise InputError(f'--min-pixels: got {min_pixels}; at least 0 is needed')
    table = read_coco(source, 'annotations')
    labels = {
        row['id']: COCO_NAMES.index(row['name']) + 1
        for row in table['categories']
        if row['name'] in COCO_NAMES
    }
    if not labels:
        raise InputError(f"annotations: '{source}' has none of COCO's names of VOC's classes")
    rows = defaultdict(list)
    for row in table['annotations']:
        if row['category_id'] in labels:
            rows[row['image_id']].append(row)
    names = []
    for done, image in enumerate(table['images']):
        if progress is not None:
            progress(done, len(table['images']))
        mask = _paint(image, rows[image['id']], labels, source)
        if np.count_nonzero((mask > 0) & (mask != IGNORE)) > min_pixels:
            names.append(str(Path(image['file_name']).with_suffix('').as_posix()))
            _save(mask, out / f'{names[-1]}.png')
    if not names:
        raise InputError(
            f"annotations: no image of '{source}' has more than {min_pixels} pixels of VOC's "
            'classes; lower --min-pixels'
        )
    atomic_text(out.with_name(f'{out.name}.txt'), '\n'.join(names) + '\n')
    return len(names), len(table['images'])


def paint_voc_mask(
    shape: tuple[int, int], rows: Sequence[Mapping[str, Any]], labels: Mapping[int, int]
) -> np.ndarray:
    """Paint the instances of an image.

    Where instances of two classes overlap nobody knows which is in front, so those pixels are
    ignored (255), as are crowds, whose outlines are rough, where no instance is. Instances of one
    class may overlap. Everything else is background, other classes of COCO too.

    Args:
        shape: Height and width in pixels.
        rows: Annotations of COCO's form, in any order.
        labels: VOC's class of each category id; annotations of other categories are left out.

    Returns:
        (height, width) of uint8.
    """
    mask = np.zeros(shape, np.uint8)
    crowd = np.zeros(shape, bool)
    for row in rows:
        if row['category_id'] not in labels:
            continue
        inside, label = _pixels(row['segmentation'], *shape), labels[row['category_id']]
        if row.get('iscrowd'):
            crowd |= inside
        else:
            mask[inside] = np.where(np.isin(mask[inside], (0, label)), label, IGNORE)
    mask[crowd & (mask == 0)] = IGNORE
    return mask


def _paint(
    image: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[int, int],
    source: Path,
) -> np.ndarray:
    try:
        return paint_voc_mask((int(image['height']), int(image['width'])), rows, labels)
    except Exception as error:  # pycocotools raises plain ones
        raise InputError(
            f"annotations: '{source}': the segmentations of image '{image['file_name']}' cannot "
            f'be read ({type(error).__name__}: {error}); polygons or RLE are needed'
        ) from error


def _pixels(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Pixels of an instance: polygons, or RLE in either of COCO's forms."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        if not segmentation:
            return np.zeros((height, width), bool)
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        code = coco_mask.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    pixels = coco_mask.decode(code).astype(bool)
    if pixels.shape != (height, width):
        raise ValueError(f'an RLE of {pixels.shape} in an image of {(height, width)}')
    return pixels


def _save(mask: np.ndarray, path: Path) -> None:
    image = Image.fromarray(mask)
    image.putpalette(voc_palette())
    atomic_write(path, lambda file: image.save(file, 'PNG', optimize=True))
