"""The faster augmentations: mmpretrain's pixels, draw by draw."""

import copy
import time
from statistics import median

import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from mmpretrain.datasets import transforms as host

from mobileone_mm.data import augmentations
from mobileone_mm.data.augmentations import AutoAugment, RandAugment
from mobileone_mm.hooks.curriculum import weakened
from mobileone_mm.runs.changes import Flags, faster_transforms

RNG = np.random.default_rng(0)
KINDS = {
    'AutoContrast': [{}],
    'Equalize': [{}],
    'Solarize': [dict(thr=thr) for thr in (0, 1, 128, 255, 256, *(256 / 9 * i for i in range(9)))],
    'SolarizeAdd': [dict(magnitude=m, thr=t) for m in (0, 1, 60, 110.0, 255) for t in (128, 77.7)],
    'Brightness': [dict(magnitude=m) for m in (0, 0.1, 0.37, 0.8, 0.9, *RNG.uniform(0, 1, 8))],
    'Contrast': [dict(magnitude=m) for m in (0, 0.1, 0.37, 0.8, 0.9, *RNG.uniform(0, 1, 8))],
}


@pytest.fixture(autouse=True)
def scope(fresh_mmengine):
    """The host's own transforms are looked up in the default scope."""
    init_default_scope('mmpretrain')


def make_images():
    """Noise, dull, dark, flat and small ones; sides that no vector register divides; views."""
    noise = RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    smooth = np.linspace(0, 255, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint8)
    found = [
        noise,
        smooth,
        RNG.normal(120, 9, (96, 96, 3)).astype(np.uint8),
        RNG.binomial(255, 0.02, (97, 33, 3)).astype(np.uint8),
        np.minimum(smooth, np.uint8([255, 7, 90])),
        np.full((40, 40, 3), 200, np.uint8),
        np.uint8([[[0, 128, 255]]]),
        RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8),
        RNG.choice(np.uint8([0, 255]), (50, 51, 3)),
    ]
    return [*found, noise[:, ::-1], noise[5:-9, 3:-4], smooth[..., ::-1]]


def apply(transform, image, seed):
    np.random.seed(seed)
    results = transform(dict(img=image, img_path='a.jpg'))
    return results, np.random.random()


def faster(transform):
    return augmentations.faster(copy.copy(transform))


def assert_same(ours, theirs, image, seed):
    before = image.copy()
    (mine, after), (expected, wanted) = (apply(t, image, seed) for t in (ours, theirs))
    np.testing.assert_array_equal(mine['img'], expected['img'], f'{theirs!r} {image.shape}')
    assert mine['img'].dtype == expected['img'].dtype
    others = [{key: r[key] for key in r if key != 'img'} for r in (mine, expected)]
    assert others[0] == others[1]
    assert after == wanted, 'as many random numbers are drawn'
    assert np.array_equal(image, before)
    return mine['img']


@pytest.mark.parametrize('kind', KINDS)
def test_same_as_the_host(kind):
    changed = 0
    for number, image in enumerate(make_images()):
        for place, options in enumerate(KINDS[kind]):
            theirs = getattr(host, kind)(prob=0.7, **options)
            assert type(faster(theirs)) is getattr(augmentations, kind)
            for seed in range(3):
                got = assert_same(faster(theirs), theirs, image, 1000 * number + 10 * place + seed)
                changed += not np.array_equal(got, image)
    assert changed > 5
    assert {kind.__name__ for kind in augmentations._FASTER} == set(KINDS), 'each is tested'
    theirs = getattr(host, kind)(prob=1.0, **KINDS[kind][-1])
    for image in (  # of other kinds: left to the host
        RNG.integers(0, 256, (9, 8, 4), dtype=np.uint8)[..., :3].astype(np.float32),
        RNG.integers(0, 256, (9, 8), dtype=np.uint8),
    ):
        try:
            theirs.transform(dict(img=image.copy()))
        except Exception as error:
            with pytest.raises(type(error)):
                faster(theirs)(dict(img=image.copy()))
        else:
            assert_same(faster(theirs), theirs, image, 1)


def test_contrast_for_every_mean():
    for mean in range(256):
        image = np.full((6, 7, 3), mean, np.uint8)
        image[::2] = RNG.integers(0, 256, (3, 7, 3))
        theirs = host.Contrast(magnitude=float(RNG.uniform(0, 1)), prob=1.0)
        assert_same(faster(theirs), theirs, image, mean)


@pytest.mark.parametrize('kind', [host.Brightness, host.Contrast])
def test_with_pillow(kind):
    """mmcv's setting does not reach its functions of colour."""
    mmcv.use_backend('pillow')
    try:
        for image in make_images()[:3]:
            theirs = kind(magnitude=0.43, prob=1.0)
            assert_same(faster(theirs), theirs, image, 3)
    finally:
        mmcv.use_backend('cv2')


@pytest.mark.parametrize('strength', [None, 0.3])
def test_whole_policies(strength):
    """Every sub-policy of ImageNet's AutoAugment, and RandAugment; also weakened by a curriculum."""
    auto = AutoAugment('imagenet', dict(pad_val=128)), host.AutoAugment('imagenet')
    images, pairs = make_images(), [(150, *auto)]
    for std in (0.5, 'inf'):
        options = dict(num_policies=2, magnitude_level=9, magnitude_std=std)
        kinds = (kind('timm_increasing', **options) for kind in (RandAugment, host.RandAugment))
        pairs.append((60, *kinds))
    for seeds, ours, theirs in pairs:
        if strength is not None:
            ours, theirs = (weakened(transform, strength) for transform in (ours, theirs))
        for seed in range(seeds):
            assert_same(ours, theirs, images[seed % len(images)], seed)


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_same_crops_as_the_host(backend, interpolation):
    options = dict(scale=(48, 32), backend=backend, interpolation=interpolation)
    ours, theirs = build('RandomResizedCrop', **options)
    for shape in ((40, 60, 3), (200, 150, 3), (97, 301, 3), (300, 30, 3), (64, 64)):
        image = RNG.integers(0, 256, shape, dtype=np.uint8)
        for seed in range(8):
            assert_same(ours, theirs, image, shape[0] + seed)


def build(kind, **options):
    return [
        TRANSFORMS.build(dict(type=f'{scope}.{kind}', **options))
        for scope in ('mobileone_mm', 'mmpretrain')
    ]


def test_takes_the_place_of_the_host():
    augment = dict(type='RandAugment', policies='timm_increasing', num_policies=2)
    crop = dict(type='RandomResizedCrop', scale=48)
    pipeline = [dict(type='AutoAugment', policies='imagenet'), augment, crop]
    loader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
    for scope, ours in (('mmpretrain', 'mobileone_mm.'), ('mmdet', '')):
        kinds = ['AutoAugment', f'{ours}RandAugment', f'{ours}RandomResizedCrop']
        cfg = Config(dict(default_scope=scope, train_dataloader=copy.deepcopy(loader)))
        faster_transforms(cfg, Flags())
        changed = cfg.train_dataloader.dataset.dataset.pipeline
        assert [transform.type for transform in changed] == kinds
        assert changed[2].scale == 48
        if scope == 'mmpretrain':
            built = TRANSFORMS.build(dict(changed[1], magnitude_level=6))
            assert type(built.transforms[1]) is augmentations.Equalize
            assert repr(built) == repr(host.RandAugment('timm_increasing', 2, 6))


CROP = dict(scale=64, crop_ratio_range=(0.6, 0.9), backend='pillow')


@pytest.mark.parametrize(
    ('kind', 'options', 'shape', 'limit'),
    [
        ('AutoAugment', dict(policies='imagenet', hparams=dict(pad_val=128)), (224, 224, 3), 0.8),
        ('RandomResizedCrop', CROP, (400, 600, 3), 0.9),
    ],
)
def test_takes_less_time(kind, options, shape, limit):
    image = RNG.normal(120, 30, shape).clip(0, 255).astype(np.uint8)
    ratios = []
    for seed in range(9):
        spent = []
        for transform in build(kind, **options):
            start = time.process_time()
            for step in range(15):
                apply(transform, image, 100 * seed + step)
            spent.append(time.process_time() - start)
        ratios.append(spent[0] / spent[1])
    assert median(ratios) < limit
