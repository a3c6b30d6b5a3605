"""Write drawn images in the layouts of COCO, ImageNet, VOC 2012 and ADE20K's challenge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from mobileone_mm.data.convert.coco_to_voc import IGNORE, voc_palette
from mobileone_mm.errors import InputError
from mobileone_mm.files import atomic_folder

from .compose import DrawnImage, compose
from .outlines import polygon_area, polygons
from .vocabulary import BY_NAME, CLASSES, IMAGENET_CLASSES, VOC_CLASSES, coco_categories

# Raise it when the same arguments give other images or files.
VERSION = 1
STAMP = 'synthetic.json'
# A part of every image's seed, so that the splits share no random stream. COCO's image ids use it too.
SPLITS = {'train': 0, 'val': 1, 'unseen': 2}
_IDS_PER_SPLIT = 1_000_000
_COCO_HEAD = {
    'info': dict(
        description='Drawn images with exact boxes and masks', version='1.0', year=2026,
        contributor='mobileone_mm', url='', date_created='2026/01/01',
    ),
    'licenses': [dict(
        id=1, name='Apache License 2.0', url='https://www.apache.org/licenses/LICENSE-2.0'
    )],
}  # fmt: skip
_COCO_IMAGE = dict(license=1, coco_url='', flickr_url='', date_captured='2026-01-01 00:00:00')
# Folder of images and annotation file of each split.
_COCO_FILES = {
    'train': ('train2017', 'annotations/instances_train2017.json'),
    'val': ('val2017', 'annotations/instances_val2017.json'),
    'unseen': ('', 'instances.json'),
}
Images = Iterator[DrawnImage]


def write_coco(root: Path, split: str, drawn_images: Images) -> None:
    """Write ``{train,val}2017/*.jpg`` and ``annotations/instances_{train,val}2017.json``.

    The split ``unseen`` is ``*.jpg`` and ``instances.json``. The category list has COCO's 80 names
    and ids, so that an 80-class config fits.
    """
    folder, file = (root / name for name in _COCO_FILES[split])
    categories = coco_categories()
    category_ids = {category['name']: category['id'] for category in categories}
    first_id = SPLITS[split] * _IDS_PER_SPLIT + 1
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, drawn in enumerate(drawn_images, first_id):
        name = f'{image_id:012d}.jpg'
        save_jpeg(drawn.image, folder / name)
        height, width = drawn.stuff.shape
        size = {'width': width, 'height': height}
        images.append({'id': image_id, 'file_name': name, **size, **_COCO_IMAGE})
        for instance in drawn.instances:
            rings = polygons(instance.mask)
            row = {
                'id': len(annotations) + first_id,
                'image_id': image_id,
                'category_id': category_ids[instance.name],
                'bbox': list(instance.box),
                'area': sum(map(polygon_area, rings)),
                'segmentation': rings,
                'iscrowd': 0,
            }
            annotations.append(row)
    tables = {'images': images, 'annotations': annotations, 'categories': categories}
    _write_text(file, json.dumps({**_COCO_HEAD, **tables}, separators=(',', ':')))


def write_imagenet(root: Path, split: str, drawn_images: Images) -> None:
    """Write ``{train,val}/<wnid>/*.JPEG`` and ``meta/{train,val}.txt`` (file and class index).

    The class indices are those of ImageNet-1k, so that a 1000-class config fits. They differ from
    the order of the few folders, so the labels must come from ``meta``.
    """
    lines = []
    for index, drawn in enumerate(drawn_images):
        thing = BY_NAME[drawn.instances[0].name]
        file = f'{thing.wnid}/{thing.wnid}_{split}_{index:06d}.JPEG'
        save_jpeg(drawn.image, root / split / file)
        lines.append(f'{file} {thing.imagenet}')
    _write_text(root / 'meta' / f'{split}.txt', '\n'.join(lines))


def write_voc(root: Path, split: str, drawn_images: Images) -> None:
    """Write the content of ``VOCdevkit/VOC2012``: images, masks and the lists of train and val.

    The masks are palette PNGs: 0 is background, 255 a border of two pixels around every object.
    """
    names = []
    (root / 'SegmentationClass').mkdir(exist_ok=True)
    for index, drawn in enumerate(drawn_images):
        names.append(f'synthetic_{split}_{index:06d}')
        save_jpeg(drawn.image, root / 'JPEGImages' / f'{names[-1]}.jpg')
        mask = Image.fromarray(_voc_mask(drawn))
        mask.putpalette(voc_palette())
        mask.save(root / 'SegmentationClass' / f'{names[-1]}.png')
    _write_text(root / 'ImageSets' / 'Segmentation' / f'{split}.txt', '\n'.join(names))


def write_ade(root: Path, split: str, drawn_images: Images) -> None:
    """Write the content of ``ADEChallengeData2016``: ``{images,annotations}/{training,validation}``.

    The masks have the challenge's indices: 1 to 150 for objects, sky, sea, grass and other
    surfaces, and 0 for objects that ADE20K does not name.
    """
    indices = {thing.name: thing.ade for thing in BY_NAME.values()}
    name = {'train': 'training', 'val': 'validation'}[split]
    (root / 'annotations' / name).mkdir(parents=True)
    for index, drawn in enumerate(drawn_images, 1):
        stem = f'ADE_{split}_{index:08d}'
        save_jpeg(drawn.image, root / 'images' / name / f'{stem}.jpg')
        Image.fromarray(drawn.painted(indices)).save(root / 'annotations' / name / f'{stem}.png')


def _voc_mask(drawn: DrawnImage) -> np.ndarray:
    """Return VOC's class indices; 255 where two regions meet, one pixel on each side."""
    owner = np.zeros_like(drawn.stuff)
    for number, instance in enumerate(drawn.instances, start=1):
        owner[instance.mask] = number
    square = np.ones((3, 3), np.uint8)
    classes = drawn.painted({t.name: t.voc or 0 for t in BY_NAME.values()}, background=0)
    return np.where(
        cv2.dilate(owner, square) != cv2.erode(owner, square), np.uint8(IGNORE), classes
    )


def draw_images(
    split: str, num: int, size: int, seed: int, classes: tuple[str, ...], **options: Any
) -> Images:
    """Yield ``num`` images of a split (a key of ``SPLITS``); ``options`` are those of ``compose``.

    An image depends on seed, split and its own number only. The classes take turns as the first
    object, so that every class occurs if there are as many images as classes.
    """
    for index in range(num):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        yield compose(rng, size, classes[index % len(classes)], classes, **options)


def save_jpeg(image: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) as JPEG of quality 92 without chroma subsampling."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, 'JPEG', quality=92, subsampling=0)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + '\n', encoding='utf-8')


class Layout(NamedTuple):
    """A layout of files.

    Attributes:
        about: One line for the help.
        write: Writes one split: the root folder, a key of ``SPLITS`` and the images.
        counts: The names and defaults of the numbers of images.
        classes: The classes that it can have.
        size: Default side of the images in pixels.
        options: Options of ``compose``.
    """

    about: str
    write: Callable[[Path, str, Images], None]
    counts: dict[str, int]
    classes: tuple[str, ...] = CLASSES
    size: int = 320
    options: dict[str, Any] = {}


_MANY, _FEW = {'num_train': 300, 'num_val': 50}, {'num_train': 200, 'num_val': 40}
_ONE = {'count': (1, 1), 'side': (0.45, 0.8)}
LAYOUTS = {
    'coco': Layout('boxes and polygons, for detection', write_coco, _MANY),
    'imagenet': Layout(
        'class folders, for classification', write_imagenet, _MANY, IMAGENET_CLASSES, 256, _ONE
    ),
    'voc': Layout('palette masks, for segmentation', write_voc, _FEW, VOC_CLASSES),
    'ade': Layout("masks in the challenge's layout", write_ade, _FEW),
    'images': Layout('a folder of unseen images, for predict', write_coco, {'num': 12}),
}


def make(
    layout: str,
    root: str | Path,
    size: int | None = None,
    seed: int = 0,
    classes: tuple[str, ...] | None = None,
    **counts: int,
) -> Path:
    """Write a dataset completely or not at all, and return its folder.

    A second call with the same arguments changes nothing.

    Args:
        layout: A key of ``LAYOUTS``.
        root: New or empty folder.
        size: Side of the square images in pixels.
        seed: Other seeds give other images.
        classes: The classes to draw; all by default.
        **counts: Numbers of images, by the names of ``Layout.counts``.

    Raises:
        InputError: An argument is out of range, or the folder holds something else.
    """
    kind = LAYOUTS[layout]
    if not counts.keys() <= kind.counts.keys():
        raise InputError(f'{layout}: got {list(counts)}; expected {list(kind.counts)}')
    counts = {**kind.counts, **counts}
    size = kind.size if size is None else size
    classes = kind.classes if classes is None else classes
    ranges = {'size': (size, 32, 4096), 'seed': (seed, 0, 2**32 - 1)}
    ranges |= {name: (count, 1, 999_999) for name, count in counts.items()}
    for name, (value, low, high) in ranges.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f'{name}: got {value!r}; expected a whole number from {low} to {high}')
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(kind.classes):
        raise InputError(
            f'classes: got {list(classes)}; expected different names of {list(kind.classes)}'
        )

    stamp = {'generator': 'demo.generator', 'version': VERSION, 'layout': layout, **counts}
    stamp |= {'size': size, 'seed': seed, 'classes': list(classes)}
    root = Path(root).expanduser().resolve()
    if not _is_made(root, stamp):
        try:
            with atomic_folder(root, 'root') as folder:
                for name, count in counts.items():
                    split = 'unseen' if name == 'num' else name.removeprefix('num_')
                    images = draw_images(split, count, size, seed, classes, **kind.options)
                    kind.write(folder, split, images)
                _write_text(folder / STAMP, json.dumps(stamp, indent=1))
        except InputError:
            if not _is_made(root, stamp):  # another process may have made it in the meantime
                raise
    return root


def _is_made(root: Path, stamp: dict[str, Any]) -> bool:
    """Return whether the folder holds this dataset; False if it does not exist or is empty."""
    if not root.is_dir() or not any(root.iterdir()):
        return False
    try:
        found = json.loads((root / STAMP).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get('generator') != stamp['generator']:
        raise InputError(
            f'root: {root} is not empty and not made by this generator; expected a new or empty folder'
        )
    differing = sorted(k for k in {*found, *stamp} if found.get(k) != stamp.get(k))
    if differing:
        raise InputError(
            f'root: {root} was made with other values of {", ".join(differing)}; delete it, or choose '
            'another folder'
        )
    return True
