"""Semantic segmentation: the layouts of VOC 2012 and of ADE20K's challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .compose import DrawnImage
from .folders import build_folder, check_classes, check_common
from .splits import drawn_images, save_jpeg
from .vocabulary import BY_NAME, CLASSES, VOC_CLASSES, voc_palette

_VOC_IGNORE = 255


def make_voc(
    root: str | Path,
    num_train: int = 200,
    num_val: int = 40,
    size: int = 320,
    seed: int = 0,
    classes: tuple[str, ...] = VOC_CLASSES,
) -> Path:
    """Writes `JPEGImages`, `SegmentationClass` and `ImageSets/Segmentation/{train,val}.txt`.

    `root` is what VOC calls `VOCdevkit/VOC2012`. Masks are palette PNGs in VOC's colours: 0
    background, VOC's own class indices, 255 on a border of two pixels around every object. `size`
    is the side of the square images in pixels. Returns the root. Raises InputError for an
    argument out of range and for a folder that holds something else.
    """
    check_common(size, seed, num_train=num_train, num_val=num_val)
    check_classes(classes, VOC_CLASSES)

    def write(folder: Path) -> None:
        for name in ('JPEGImages', 'SegmentationClass', 'ImageSets/Segmentation'):
            (folder / name).mkdir(parents=True)
        for split, num in (('train', num_train), ('val', num_val)):
            names = []
            for index, image in enumerate(drawn_images(split, num, size, seed, classes)):
                names.append(f'synthetic_{split}_{index:06d}')
                save_jpeg(image.image, folder / 'JPEGImages' / f'{names[-1]}.jpg')
                mask = Image.fromarray(voc_mask(image))
                mask.putpalette(voc_palette())
                mask.save(folder / 'SegmentationClass' / f'{names[-1]}.png')
            listing = folder / 'ImageSets' / 'Segmentation' / f'{split}.txt'
            listing.write_text('\n'.join(names) + '\n', encoding='utf-8')

    return build_folder(root, _stamp('voc', num_train, num_val, size, seed, classes), write)


def make_ade(
    root: str | Path,
    num_train: int = 200,
    num_val: int = 40,
    size: int = 320,
    seed: int = 0,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """Writes `{images,annotations}/{training,validation}`.

    `root` is what ADE20K calls `ADEChallengeData2016`. Masks hold ADE20K's challenge indices: 1 to
    150 for objects and for sky, sea, grass and other surfaces, 0 for objects that ADE20K does not
    name. `size` is the side of the square images in pixels. Returns the root. Raises InputError
    for an argument out of range and for a folder that holds something else.
    """
    check_common(size, seed, num_train=num_train, num_val=num_val)
    check_classes(classes, CLASSES)

    def write(folder: Path) -> None:
        for split, name, num in (('train', 'training', num_train), ('val', 'validation', num_val)):
            for kind in ('images', 'annotations'):
                (folder / kind / name).mkdir(parents=True)
            for index, image in enumerate(drawn_images(split, num, size, seed, classes)):
                stem = f'ADE_{split}_{index + 1:08d}'
                save_jpeg(image.image, folder / 'images' / name / f'{stem}.jpg')
                Image.fromarray(ade_mask(image)).save(folder / 'annotations' / name / f'{stem}.png')

    return build_folder(root, _stamp('ade', num_train, num_val, size, seed, classes), write)


def _stamp(
    layout: str, num_train: int, num_val: int, size: int, seed: int, classes: tuple[str, ...]
) -> dict[str, object]:
    return {
        'layout': layout,
        'num_train': num_train,
        'num_val': num_val,
        'size': size,
        'seed': seed,
        'classes': list(classes),
    }


def voc_mask(image: DrawnImage) -> np.ndarray:
    """VOC's class indices, uint8 (size, size); 255 where two regions meet, one pixel on each side."""
    owner = np.zeros(image.stuff.shape, np.uint8)
    classes = np.zeros(image.stuff.shape, np.uint8)
    for number, instance in enumerate(image.instances, start=1):
        owner[instance.mask] = number
        classes[instance.mask] = BY_NAME[instance.name].voc or 0
    regions = Image.fromarray(owner)
    highest, lowest = (
        np.asarray(regions.filter(rank(3)))
        for rank in (ImageFilter.MaxFilter, ImageFilter.MinFilter)
    )
    classes[highest != lowest] = _VOC_IGNORE
    return classes


def ade_mask(image: DrawnImage) -> np.ndarray:
    """ADE20K's challenge indices, uint8 (size, size)."""
    classes = image.stuff.copy()
    for instance in image.instances:
        classes[instance.mask] = BY_NAME[instance.name].ade
    return classes
