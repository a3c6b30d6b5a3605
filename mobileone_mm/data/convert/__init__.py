"""Datasets converted: VOC masks and single-object images from COCO annotations."""
