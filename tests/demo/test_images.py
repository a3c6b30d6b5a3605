"""The drawn images: reproducible, labelled exactly, with room around every object."""

import json
from itertools import combinations

import cv2
import numpy as np
import pytest

from demo.generator import CLASSES
from demo.generator.compose import MAX_IOU, DrawnImage, Instance, draw_images
from demo.generator.drawings import THINGS, draw
from demo.generator.layouts import coco_categories
from demo.generator.scenes import ADE_STUFF, LIGHTS, PLACES, paint_scene


@pytest.fixture(scope='module')
def drawn() -> list[DrawnImage]:
    return list(draw_images('train', 40, 96, 0, CLASSES))


def _iou(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def test_an_image_depends_on_seed_split_and_number_only(drawn: list[DrawnImage]) -> None:
    for one, two in zip(draw_images('train', 3, 96, 0, CLASSES), drawn, strict=False):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)


def test_images_are_bytes_and_boxes_tight_around_the_masks(drawn: list[DrawnImage]) -> None:
    for image in drawn:
        assert image.image.shape == (96, 96, 3)
        assert image.image.dtype == np.uint8
        assert image.image.std() > 10
        for instance in image.instances:
            left, top, width, height = instance.box
            inside = instance.mask[top : top + height, left : left + width]
            assert inside.sum() == instance.mask.sum() > 0
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()


def test_masks_end_where_the_dark_outline_ends() -> None:
    """A rim of the mask is dark on all sides, the sky just outside of it is not."""
    skies = [
        image
        for image in draw_images('val', 8, 256, 5, ('kite',), count=(1, 1))
        if image.image[:20].mean() > 150
    ]
    assert len(skies) > 3
    for image in skies:
        mask = image.instances[0].mask
        grey = image.image.mean(axis=2)
        for turns in range(4):
            # Seen from above, along each column: two pixels before the mask, and its first two.
            turned_mask, turned_grey = np.rot90(mask, turns), np.rot90(grey, turns)
            columns = np.flatnonzero(turned_mask.any(axis=0))
            rows = turned_mask.argmax(axis=0)[columns]
            columns, rows = columns[rows >= 2], rows[rows >= 2]
            outside = np.median(turned_grey[rows - 2, columns])
            rim = np.minimum(turned_grey[rows, columns], turned_grey[rows + 1, columns])
            assert np.median(rim) < 0.55 * outside


def test_boxes_hardly_overlap(drawn: list[DrawnImage]) -> None:
    ious = [
        _iou(one.box, two.box) for image in drawn for one, two in combinations(image.instances, 2)
    ]
    assert len(ious) > 20
    # Hidden parts shrink a box a little, which moves the measure by little.
    assert max(ious) < MAX_IOU + 0.03


def test_number_side_and_classes_of_the_objects(drawn: list[DrawnImage]) -> None:
    counts = {len(image.instances) for image in drawn}
    assert counts == {1, 2, 3, 4}
    sides = [max(item.box[2:]) / 96 for image in drawn for item in image.instances]
    assert min(sides) > 0.16
    assert max(sides) < 0.65
    names = [item.name for image in drawn for item in image.instances]
    assert set(names) == set(CLASSES)
    # Every class has its turn in each round of images, so none is rare.
    assert min(map(names.count, CLASSES)) >= 5


@pytest.mark.parametrize('name', CLASSES)
def test_a_drawing_fills_its_side_in_one_piece_and_varies(name: str) -> None:
    seen = set()
    for seed in range(6):
        sprite = draw(name, 80, np.random.default_rng(seed))
        seen.add(sprite.rgb.tobytes())
        mask = sprite.alpha >= 128
        assert 60 <= max(mask.shape) <= 112
        assert mask.mean() > 0.25
        areas = [cv2.contourArea(ring) for ring in Instance(name, mask).polygons()]
        assert max(areas) > 0.97 * sum(areas)
    assert len(seen) == 6


@pytest.mark.parametrize('kind', PLACES)
def test_scenes_name_their_surfaces(kind: str) -> None:
    names = {
        'sea': {'sea'},
        'beach': {'sea', 'sand'},
        'meadow': {'grass', 'tree'},
        'street': {'building', 'sidewalk', 'road'},
    }[kind]
    scene = paint_scene(kind, 96, np.random.default_rng(0))
    seen = set(np.unique(scene.stuff).tolist())
    assert {ADE_STUFF[name] for name in names | {'sky'}} <= seen <= set(ADE_STUFF.values())
    assert (scene.stuff[0] == ADE_STUFF['sky']).all()
    assert ADE_STUFF['sky'] not in scene.stuff[-1]
    assert scene.light in LIGHTS


def test_polygons_cover_exactly_the_mask() -> None:
    mask = np.zeros((9, 11), bool)
    mask[1:4, 2:6] = True
    mask[4, 6] = True  # touches the first part at a corner only
    mask[6:9, 8:11] = True
    mask[7, 9] = False  # a hole: filled
    rings = Instance('bus', mask).polygons()
    assert sorted(cv2.contourArea(ring) for ring in rings) == [1, 9, 12]
    assert [[2, 1], [6, 1], [6, 4], [2, 4]] in [ring.tolist() for ring in rings]


def test_polygons_agree_with_pycocotools(drawn: list[DrawnImage]) -> None:
    coco_mask = pytest.importorskip('pycocotools.mask')
    for image in drawn[:10]:
        for instance in image.instances:
            rings = instance.polygons()
            flat = [ring.ravel().tolist() for ring in rings]
            runs = coco_mask.merge(coco_mask.frPyObjects(flat, 96, 96))
            painted = coco_mask.decode(runs).astype(bool)
            assert painted[instance.mask].all()
            # What is painted beyond the mask are its filled holes.
            assert painted.sum() == sum(map(cv2.contourArea, rings))
            assert painted.sum() - instance.mask.sum() < 0.05 * painted.sum()


def test_official_numbers() -> None:
    categories = coco_categories()
    ids = [category['id'] for category in categories]
    assert (ids[0], ids[-1]) == (1, 90)
    assert ids == sorted(set(ids))
    by_name = {category['name']: category['id'] for category in categories}
    numbers = (5, 6, 9, 16, 28, 38, 64, 88)
    # In COCO's order, so that labels of a config with these classes only follow the file's.
    assert tuple(by_name[name] for name in CLASSES) == numbers


def test_names_agree_with_the_hosts_lists() -> None:
    """So a model with all classes of a dataset gives a drawn object its name."""
    from mmdet.datasets import CocoDataset
    from mmseg.datasets import ADE20KDataset, PascalVOCDataset

    coco, voc, ade = (
        kind.METAINFO['classes'] for kind in (CocoDataset, PascalVOCDataset, ADE20KDataset)
    )
    assert tuple(category['name'] for category in coco_categories()) == coco
    same = dict(bus='bus', boat='boat', airplane='airplane', bird='bird')
    of_voc = {**same, 'airplane': 'aeroplane', 'potted plant': 'pottedplant'}
    assert {name: voc[thing.voc] for name, thing in THINGS.items() if thing.voc} == of_voc
    of_ade = {**same, 'bird': 'animal', 'potted plant': 'plant', 'teddy bear': 'plaything'}
    assert {name: ade[thing.ade - 1] for name, thing in THINGS.items() if thing.ade} == of_ade
    assert all(ade[index - 1] == name for name, index in ADE_STUFF.items())


def test_names_agree_with_the_published_lists(real_data) -> None:
    """COCO's and ImageNet's, from pieces of the real datasets."""
    real = json.loads((real_data / 'coco/annotations/instances_val2017.json').read_text())
    assert coco_categories() == [
        {key: category[key] for key in ('supercategory', 'id', 'name')}
        for category in real['categories']
    ]
    synsets = (real_data / 'imagenet/meta/synsets.csv').read_text().splitlines()
    numbers = {line.split(',')[1]: line.split(',')[0] for line in synsets[1:]}
    wnids = [thing for thing in THINGS.values() if thing.wnid]
    assert all(numbers[thing.wnid] == str(thing.imagenet) for thing in wnids)
