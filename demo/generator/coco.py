"""Detection and instance masks: COCO's layout, and a folder of unseen images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .compose import Instance
from .folders import build_folder, check_classes, check_common
from .outlines import polygon_area, polygons
from .splits import SPLITS, drawn_images, save_jpeg
from .vocabulary import CLASSES, coco_categories

ANNOTATION_FILE = 'instances.json'
_IDS_PER_SPLIT = 1_000_000


def make_coco(
    root: str | Path,
    num_train: int = 300,
    num_val: int = 50,
    size: int = 320,
    seed: int = 0,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """Writes `{train,val}2017/*.jpg` and `annotations/instances_{train,val}2017.json`.

    `size` is the side of the square images in pixels. The category list has COCO's 80 names and
    ids whatever is drawn, so that an 80-class config fits. Returns the root. Raises InputError for
    an argument out of range and for a folder that holds something else.
    """
    check_common(size, seed, num_train=num_train, num_val=num_val)
    check_classes(classes, CLASSES)

    def write(folder: Path) -> None:
        (folder / 'annotations').mkdir()
        for split, num in (('train', num_train), ('val', num_val)):
            name = f'{split}2017'
            (folder / name).mkdir()
            table = _write_split(folder / name, split, num, size, seed, classes)
            _write_json(table, folder / 'annotations' / f'instances_{name}.json')

    stamp = {'layout': 'coco', 'num_train': num_train, 'num_val': num_val}
    return build_folder(root, {**stamp, **_common_stamp(size, seed, classes)}, write)


def make_images(
    folder: str | Path,
    num: int = 12,
    size: int = 320,
    seed: int = 0,
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """Writes unseen images `folder/*.jpg` and their annotations, `folder/instances.json`.

    With the same seed they share no random stream with `make_coco`'s train and val images.
    Arguments, return value and errors are those of `make_coco`.
    """
    check_common(size, seed, num=num)
    check_classes(classes, CLASSES)

    def write(target: Path) -> None:
        _write_json(
            _write_split(target, 'unseen', num, size, seed, classes), target / ANNOTATION_FILE
        )

    stamp = {'layout': 'images', 'num': num, **_common_stamp(size, seed, classes)}
    return build_folder(folder, stamp, write)


def _common_stamp(size: int, seed: int, classes: tuple[str, ...]) -> dict[str, Any]:
    return {'size': size, 'seed': seed, 'classes': list(classes)}


def _write_split(
    folder: Path, split: str, num: int, size: int, seed: int, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Writes the images of a split and returns its annotation table."""
    category_ids = {category['name']: category['id'] for category in coco_categories()}
    first_id = SPLITS[split] * _IDS_PER_SPLIT + 1
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(drawn_images(split, num, size, seed, classes), first_id):
        file_name = f'{image_id:012d}.jpg'
        save_jpeg(image.image, folder / file_name)
        images.append(
            {
                'id': image_id,
                'file_name': file_name,
                'width': size,
                'height': size,
                'license': 1,
                'coco_url': '',
                'flickr_url': '',
                'date_captured': '2026-01-01 00:00:00',
            }
        )
        for instance in image.instances:
            annotations.append(
                {
                    'id': len(annotations) + first_id,
                    'image_id': image_id,
                    'category_id': category_ids[instance.name],
                    **_annotation(instance),
                }
            )
    return {
        'info': {
            'description': 'Drawn images with exact boxes and masks',
            'version': '1.0',
            'year': 2026,
            'contributor': 'mobileone_mm',
            'url': '',
            'date_created': '2026/01/01',
        },
        'licenses': [
            {
                'id': 1,
                'name': 'Apache License 2.0',
                'url': 'https://www.apache.org/licenses/LICENSE-2.0',
            }
        ],
        'images': images,
        'annotations': annotations,
        'categories': coco_categories(),
    }


def _annotation(instance: Instance) -> dict[str, Any]:
    rings = polygons(instance.mask)
    return {
        'bbox': list(instance.box),
        'area': sum(map(polygon_area, rings)),
        'segmentation': rings,
        'iscrowd': 0,
    }


def _write_json(table: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(table, separators=(',', ':')) + '\n', encoding='utf-8')
