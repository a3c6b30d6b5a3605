"""RandomResizedCrop: mmpretrain's results, draw by draw and pixel by pixel."""

from __future__ import annotations

import copy
import time
from statistics import median

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets.transforms import RandomResizedCrop as HostCrop

from mobileone_mm.runs.changes import Flags, faster_transforms


def images():
    noise = np.random.default_rng(0)
    shapes = [(40, 60, 3), (200, 150, 3), (97, 301, 3), (300, 30, 3), (64, 64)]
    return [noise.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def apply(transform, image, seed):
    np.random.seed(seed)
    results = transform(dict(img=image.copy(), img_path='a.jpg'))
    return results, np.random.random()


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_same_as_the_host(backend, interpolation):
    options = dict(scale=(48, 32), backend=backend, interpolation=interpolation)
    ours = TRANSFORMS.build(dict(type='mobileone_mm.RandomResizedCrop', **options))
    theirs = HostCrop(**options)
    for number, image in enumerate(images()):
        for seed in range(8):
            (mine, after), (host, expected) = (
                apply(transform, image, 100 * number + seed) for transform in (ours, theirs)
            )
            assert np.array_equal(mine['img'], host['img'])
            assert mine['img'].dtype == host['img'].dtype
            assert after == expected, 'as many random numbers are drawn'
            assert {key: mine[key] for key in mine if key != 'img'} == {
                key: host[key] for key in host if key != 'img'
            }


def test_takes_less_time():
    """A whole image of 400 x 600: half the time or so; anything below 0.9 passes."""
    image = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    options = dict(scale=64, crop_ratio_range=(0.6, 0.9), backend='pillow')
    ours = TRANSFORMS.build(dict(type='mobileone_mm.RandomResizedCrop', **options))
    ratios = []
    for seed in range(15):
        spent = []
        for transform in (ours, HostCrop(**options)):
            start = time.process_time()
            for step in range(3):
                apply(transform, image, 10 * seed + step)
            spent.append(time.process_time() - start)
        ratios.append(spent[0] / spent[1])
    assert median(ratios) < 0.9


def test_takes_the_place_of_the_host():
    crop = dict(type='RandomResizedCrop', scale=48)
    loader = dict(dataset=dict(dataset=dict(pipeline=[dict(type='LoadImage'), crop])))
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=copy.deepcopy(loader)))
    faster_transforms(cfg, Flags())
    changed = cfg.train_dataloader.dataset.dataset.pipeline
    assert changed[1] == dict(type='mobileone_mm.RandomResizedCrop', scale=48)
    assert changed[0].type == 'LoadImage'

    other = Config(dict(default_scope='mmdet', train_dataloader=copy.deepcopy(loader)))
    faster_transforms(other, Flags())
    assert other.train_dataloader.dataset.dataset.pipeline[1].type == 'RandomResizedCrop'
