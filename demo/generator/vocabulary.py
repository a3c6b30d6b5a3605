"""The drawn classes, and their names and numbers in COCO, ImageNet, VOC and ADE20K.

The official configs (80, 1000, 21 and 150 classes) read the drawn images unchanged: only the data
root differs from real data.
"""

from __future__ import annotations

from typing import NamedTuple


class Thing(NamedTuple):
    """A class of drawn objects.

    Attributes:
        name: COCO's category name.
        wnid: ImageNet's folder name; None if ImageNet-1k has no such class.
        imagenet: ImageNet-1k's class index, 0 to 999.
        voc: VOC's class index, 1 to 20; None if VOC has no such class.
        ade: ADE20K's challenge index, 1 to 150; 0 is ADE20K's "other".
    """

    name: str
    wnid: str | None = None
    imagenet: int | None = None
    voc: int | None = None
    ade: int = 0


# In COCO's order: CLASSES alone and all 80 names give labels of the same order.
THINGS = (
    Thing('airplane', 'n02690373', 404, voc=1, ade=91),
    Thing('bus', 'n04146614', 779, voc=6, ade=81),
    Thing('boat', 'n04612504', 914, voc=4, ade=77),
    Thing('bird', 'n01580077', 17, voc=3, ade=127),
    Thing('umbrella', 'n04507155', 879),
    Thing('kite'),
    Thing('potted plant', 'n03991062', 738, voc=16, ade=18),
    Thing('teddy bear', 'n04399382', 850, ade=109),
)
BY_NAME = {thing.name: thing for thing in THINGS}
CLASSES = tuple(BY_NAME)
IMAGENET_CLASSES = tuple(thing.name for thing in THINGS if thing.wnid)
VOC_CLASSES = tuple(thing.name for thing in THINGS if thing.voc)

# ADE20K's indices of the surfaces in the scenes.
ADE_STUFF = dict(
    building=2, sky=3, tree=5, road=7, grass=10, sidewalk=12, mountain=17, sea=27, sand=47
)

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
