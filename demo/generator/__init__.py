"""Drawn images with exact labels in the layouts of COCO, ImageNet, VOC and ADE20K.

The demo and the tests use them: there is no download and no license, and the same arguments give
the same images on every machine with the same Pillow and NumPy.
"""

from .layouts import CLASSES, IMAGENET_CLASSES, LAYOUTS, VOC_CLASSES, make

__all__ = ['CLASSES', 'IMAGENET_CLASSES', 'LAYOUTS', 'VOC_CLASSES', 'make']
