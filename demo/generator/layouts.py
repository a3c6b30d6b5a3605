"""Write drawn images in the layouts of COCO, ImageNet, VOC 2012 and ADE20K's challenge."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from mobileone_mm.data.convert.coco_to_voc import IGNORE, voc_palette
from mobileone_mm.errors import InputError
from mobileone_mm.files import atomic_folder

from .compose import SPLITS, DrawnImage, draw_images
from .drawings import THINGS

CLASSES = tuple(THINGS)
IMAGENET_CLASSES = tuple(name for name, thing in THINGS.items() if thing.wnid)
VOC_CLASSES = tuple(name for name, thing in THINGS.items() if thing.voc)
# Raise it when the same arguments give other images or files.
VERSION = 2
STAMP = 'synthetic.json'
_COCO_HEAD = {
    'info': dict(
        description='Drawn images with exact boxes and masks', version='1.0', year=2026,
        contributor='mobileone_mm', url='', date_created='2026/01/01',
    ),
    'licenses': [dict(
        id=1, name='Apache License 2.0', url='https://www.apache.org/licenses/LICENSE-2.0'
    )],
}  # fmt: skip
_IDS_PER_SPLIT = 1_000_000
_COCO_IMAGE = dict(license=1, coco_url='', flickr_url='', date_captured='2026-01-01 00:00:00')
# Folder of images and annotation file of each split.
_COCO_FILES = {
    'train': ('train2017', 'annotations/instances_train2017.json'),
    'val': ('val2017', 'annotations/instances_val2017.json'),
    'unseen': ('', 'instances.json'),
}
_COCO_GROUPS = {
    'person': 'person',
    'vehicle': 'bicycle, car, motorcycle, airplane, bus, train, truck, boat',
    'outdoor': 'traffic light, fire hydrant, stop sign, parking meter, bench',
    'animal': 'bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe',
    'accessory': 'backpack, umbrella, handbag, tie, suitcase',
    'sports': 'frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, '
    'skateboard, surfboard, tennis racket',
    'kitchen': 'bottle, wine glass, cup, fork, knife, spoon, bowl',
    'food': 'banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake',
    'furniture': 'chair, couch, potted plant, bed, dining table, toilet',
    'electronic': 'tv, laptop, mouse, remote, keyboard, cell phone',
    'appliance': 'microwave, oven, toaster, sink, refrigerator',
    'indoor': 'book, clock, vase, scissors, teddy bear, hair drier, toothbrush',
}
_COCO_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
Images = Iterator[DrawnImage]


def coco_categories() -> list[dict]:
    """Return all 80 categories of COCO 2017 with their official ids (1 to 90 with gaps).

    mmdet numbers labels by the categories in the annotation file: with the drawn categories only,
    every label of an 80-class config would be shifted.
    """
    ids = (number for number in range(1, 91) if number not in _COCO_UNUSED_IDS)
    return [
        {'supercategory': group, 'id': next(ids), 'name': name}
        for group, names in _COCO_GROUPS.items()
        for name in names.split(', ')
    ]


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
        write_image(drawn.image, folder / name)
        height, width = drawn.owner.shape
        size = {'width': width, 'height': height}
        images.append({'id': image_id, 'file_name': name, **size, **_COCO_IMAGE})
        for instance in drawn.instances:
            rings = instance.polygons()
            row = {
                'id': len(annotations) + first_id,
                'image_id': image_id,
                'category_id': category_ids[instance.name],
                'bbox': instance.box,
                'area': int(sum(map(cv2.contourArea, rings))),
                'segmentation': [ring.ravel().tolist() for ring in rings],
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
        thing = THINGS[drawn.names[0]]
        file = f'{thing.wnid}/{thing.wnid}_{split}_{index:06d}.JPEG'
        write_image(drawn.image, root / split / file)
        lines.append(f'{file} {thing.imagenet}')
    _write_text(root / 'meta' / f'{split}.txt', '\n'.join(lines))


def write_voc(root: Path, split: str, drawn_images: Images) -> None:
    """Write the content of ``VOCdevkit/VOC2012``: images, masks and the lists of train and val.

    The masks are palette PNGs: 0 is background, 255 a border of two pixels around every object.
    """
    names, square = [], np.ones((3, 3), np.uint8)
    for index, drawn in enumerate(drawn_images):
        names.append(f'synthetic_{split}_{index:06d}')
        write_image(drawn.image, root / 'JPEGImages' / f'{names[-1]}.jpg')
        mask = drawn.painted('voc', np.zeros_like(drawn.owner))
        # One pixel on each side of the line where two regions meet
        mask[cv2.dilate(drawn.owner, square) != cv2.erode(drawn.owner, square)] = IGNORE
        write_image(mask, root / 'SegmentationClass' / f'{names[-1]}.png', voc_palette())
    _write_text(root / 'ImageSets' / 'Segmentation' / f'{split}.txt', '\n'.join(names))


def write_ade(root: Path, split: str, drawn_images: Images) -> None:
    """Write the content of ``ADEChallengeData2016``: ``{images,annotations}/{training,validation}``.

    The masks have the challenge's indices: 1 to 150 for objects, sky, sea, grass and other
    surfaces, and 0 for objects that ADE20K does not name.
    """
    name = {'train': 'training', 'val': 'validation'}[split]
    for index, drawn in enumerate(drawn_images, 1):
        file = f'{name}/ADE_{split}_{index:08d}'
        write_image(drawn.image, root / 'images' / f'{file}.jpg')
        write_image(drawn.painted('ade', drawn.stuff), root / 'annotations' / f'{file}.png')


def write_image(pixels: np.ndarray, path: Path, palette: Sequence[int] = ()) -> None:
    """Write uint8 RGB or indices as the suffix says; JPEG without chroma subsampling."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(palette)
    image.save(path, quality=92, subsampling=0)  # PNG has neither


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + '\n', encoding='utf-8')


class Layout(NamedTuple):
    """A layout of files."""

    about: str  # for the help
    write: Callable[[Path, str, Images], None]  # writes one split: root, key of SPLITS, images
    counts: dict[str, int]  # names and defaults of the numbers of images
    classes: tuple[str, ...] = CLASSES
    size: int = 320  # of an image in pixels
    options: dict[str, Any] = {}  # of ``compose``


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
        classes: The classes to draw, of the layout's; all by default.
        **counts: Numbers of images, by the names of ``Layout.counts``.
    """
    kind = LAYOUTS[layout]
    counts = {**kind.counts, **counts}
    size = kind.size if size is None else size
    classes = classes or kind.classes
    ranges = {'size': (size, 32, 4096), 'seed': (seed, 0, 2**32 - 1)}
    ranges |= {name: (count, 1, 999_999) for name, count in counts.items()}
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise InputError(f'{name}: got {value!r}; expected a whole number from {low} to {high}')
    stamp = {'generator': 'demo.generator', 'version': VERSION, 'layout': layout, **counts}
    stamp |= {'size': size, 'seed': seed, 'classes': list(classes)}
    root = Path(root).expanduser().resolve()
    if not _is_made(root, stamp):
        with atomic_folder(root, 'root') as folder:
            for name, count in counts.items():
                split = 'unseen' if name == 'num' else name.removeprefix('num_')
                images = draw_images(split, count, size, seed, classes, **kind.options)
                kind.write(folder, split, images)
            _write_text(folder / STAMP, json.dumps(stamp, indent=1))
    return root


def _is_made(root: Path, stamp: dict[str, Any]) -> bool:
    """Return whether the folder holds this dataset; False if nothing of this generator is there."""
    try:
        found = json.loads((root / STAMP).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return False
    differing = sorted(key for key in stamp if found.get(key) != stamp[key])
    if differing:
        raise InputError(
            f'root: {root} was made with other values of {", ".join(differing)}; delete it, or choose '
            'another folder'
        )
    return True
