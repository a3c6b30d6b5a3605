"""Drawn images with exact labels in the layouts of COCO, ImageNet, VOC and ADE20K.

They serve the demo and the tests: no download, no licence to ask for, the same images for the
same arguments on every machine (as far as the installed Pillow and numpy draw and round alike).
"""

from __future__ import annotations

from .coco import make_coco, make_images
from .imagenet import make_imagenet
from .segmentation import make_ade, make_voc
from .vocabulary import CLASSES, IMAGENET_CLASSES, VOC_CLASSES

__all__ = [
    'CLASSES',
    'IMAGENET_CLASSES',
    'VOC_CLASSES',
    'make_ade',
    'make_coco',
    'make_imagenet',
    'make_images',
    'make_voc',
]
