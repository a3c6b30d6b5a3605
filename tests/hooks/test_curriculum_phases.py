"""Phases as data, and transforms that change with them."""

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose, RandomApply, Resize
from mmpretrain.datasets.transforms import AutoAugment, RandAugment, RandomResizedCrop
from torch.utils.data import DataLoader, Dataset

from mobileone_mm.data.augmentations import AutoAugment as OurAutoAugment
from mobileone_mm.hooks.curriculum import CurriculumHook, Phased, install, read_phases, weakened

PAPER = [
    dict(begin=0, resolution=160, strength=0.3),
    dict(begin=38, resolution=192, strength=0.7),
    dict(begin=113, resolution=224, strength=1.0),
]


@pytest.mark.parametrize(
    ('total', 'begins'),
    [
        (300, {300: [0, 38, 113], 30: [0, 4, 11], 600: [0, 76, 226], 4: [0, 1, 2], 3: [0, 1, 2]}),
        (None, {300: [0, 38, 113], 114: [0, 38, 113]}),
    ],
)
def test_begins(total, begins):
    hook = CurriculumHook(PAPER, total)
    assert {epochs: hook.begins(epochs) for epochs in begins} == begins


@pytest.mark.parametrize(
    ('total', 'max_epochs', 'number', 'epoch'),
    [(300, 2, 2, 3), (300, 1, 1, 2), (None, 30, 1, 39), (None, 113, 2, 114), (100, 100, 2, 114)],
)
def test_a_phase_behind_the_end(total, max_epochs, number, epoch):
    line = f'phases.{number}: would begin at epoch {epoch} of a run of {max_epochs};'
    with pytest.raises(ValueError, match=line):
        CurriculumHook(PAPER, total).begins(max_epochs)


def changed(index, **values):
    phases = copy.deepcopy(PAPER)
    phases[index].update(values)
    return phases


SHAPE = 'expected a dict with begin, and resolution or strength or both'


@pytest.mark.parametrize(
    ('phases', 'line'),
    [
        ([], 'phases: got []; expected a list of dicts'),
        (dict(begin=0), 'expected a list of dicts'),
        ([3], f'phases.0: got 3; {SHAPE}'),
        (changed(1, pipeline=[]), f"'pipeline': []}}; {SHAPE}"),
        ([dict(resolution=160)], f"phases.0: got {{'resolution': 160}}; {SHAPE}"),
        ([dict(begin=0)], f"phases.0: got {{'begin': 0}}; {SHAPE}"),
        (changed(0, begin=1), 'phases.0.begin: got 1; expected 0 for the first phase'),
        (
            changed(2, begin=38),
            'phases.2.begin: got 38; expected more than in the phase before (38)',
        ),
        (changed(1, begin=True), 'phases.1.begin: got True; expected an integer of at least 0'),
        (changed(1, begin=-1), 'phases.1.begin: got -1; expected an integer of at least 0'),
        (changed(1, resolution=0), 'phases.1.resolution: got 0; expected an integer of at least 1'),
        (changed(1, resolution=None), 'phases.1.resolution: set it in all phases or in none'),
        (changed(1, strength=-0.1), 'phases.1.strength: got -0.1; expected a number from 0 to 1'),
        (changed(1, strength=True), 'phases.1.strength: got True; expected a number from 0 to 1'),
        (changed(1, strength=1.5), 'phases.1.strength: got 1.5; expected a number from 0 to 1'),
        (changed(1, strength=None), 'phases.1.strength: set it in all phases or in none'),
        (changed(1, resolution=160, strength=0.3), 'phases.1: equals the phase before'),
    ],
)
def test_malformed_phases(phases, line):
    with pytest.raises((TypeError, ValueError), match=re.escape(line)):
        CurriculumHook(phases)


def test_phases_at_the_limits():
    one = read_phases([dict(begin=0, resolution=1, strength=0)])
    assert one == ((0, 1, 0),)
    assert read_phases([dict(begin=0, strength=1)]) == ((0, None, 1),)
    assert str(read_phases(PAPER)[0]) == '160 px, strength 0.3'


def settings(policy):
    """Names and settings of the augmentations of a policy."""
    parts = [part for sub in policy.transforms for part in getattr(sub, 'transforms', [sub])]
    keys = ('magnitude', 'angle', 'thr', 'bits', 'magnitude_level', 'prob', 'pad_val')
    return [
        (type(part).__name__, {key: vars(part)[key] for key in keys if key in vars(part)})
        for part in parts
    ]


def test_magnitudes_of_auto_augment():
    whole = AutoAugment('imagenet')
    before = settings(whole)
    assert settings(weakened(whole, 1)) == before
    seen = set()
    for (name, old), (_, new) in zip(before, settings(weakened(whole, 0.3)), strict=True):
        seen.add(name)
        assert new['prob'] == old['prob']
        if name == 'Solarize':
            assert 256 - new['thr'] == pytest.approx(0.3 * (256 - old['thr']))
        elif name == 'Posterize':
            assert new['bits'] == {4: 7, 5: 7, 6: 7}[old['bits']]
        elif name == 'Rotate':
            assert new['angle'] == pytest.approx(0.3 * old['angle'])
        elif name not in ('AutoContrast', 'Equalize', 'Invert'):
            assert new['magnitude'] == pytest.approx(0.3 * old['magnitude'])
    assert len(seen) == 10
    assert settings(whole) == before  # it was a copy that changed


def test_no_strength_is_no_change():
    """At strength 0 what has a magnitude leaves the image as it is."""
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    kinds = dict(
        Rotate=dict(angle=30.0), Shear=dict(magnitude=0.3), Translate=dict(magnitude=0.4),
        Solarize=dict(thr=30), SolarizeAdd=dict(magnitude=60), Posterize=dict(bits=2),
        Contrast=dict(magnitude=0.8), ColorTransform=dict(magnitude=0.8),
        Brightness=dict(magnitude=0.8), Sharpness=dict(magnitude=0.8),
    )  # fmt: skip
    for kind, setting in kinds.items():
        transform = AutoAugment([[dict(type=kind, prob=1.0, **setting)]])
        assert not np.array_equal(transform(dict(img=image.copy()))['img'], image), kind
        weak = weakened(transform, 0)(dict(img=image.copy()))['img']
        np.testing.assert_array_equal(weak, image, kind)


def test_magnitudes_of_rand_augment():
    whole = RandAugment('timm_increasing', num_policies=2, magnitude_level=6)
    for (name, old), (_, new) in zip(settings(whole), settings(weakened(whole, 0.7)), strict=True):
        factor = 1 if name in ('AutoContrast', 'Equalize', 'Invert') else 0.7
        assert new['magnitude_level'] == pytest.approx(factor * old['magnitude_level']), name


def test_hparams_arrive():
    """The deviation from mmpretrain's class, and its reason."""
    mean = [104, 116, 124]
    theirs, ours = (kind('imagenet', dict(pad_val=mean)) for kind in (AutoAugment, OurAutoAugment))
    rotates = [[s for n, s in settings(policy) if n == 'Rotate'] for policy in (theirs, ours)]
    assert {s['pad_val'] for s in rotates[0]} == {128}
    assert {s['pad_val'] for s in rotates[1]} == {tuple(mean)}
    for (_, a), (_, b) in zip(settings(theirs), settings(ours), strict=True):
        assert {**a, 'pad_val': 0} == {**b, 'pad_val': 0}


class Turned(Dataset):
    """Black images with a white corner, turned by a quarter at full strength."""

    def __init__(self, *transforms):
        policy = dict(type='Rotate', angle=90.0, prob=1.0, random_negative_prob=0.0)
        self.pipeline = Compose(
            [*transforms, RandomResizedCrop(16, (1.0, 1.0), (1.0, 1.0)), AutoAugment([[policy]])]
        )

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = np.zeros((64, 64, 3), np.uint8)
        image[:32, :32] = 255
        return torch.from_numpy(self.pipeline(dict(img=image))['img'].copy())


class Wrapper:
    """Around several datasets, with transforms of its own, as mmdet's for mosaics has them."""

    def __init__(self, *datasets):
        self.datasets = list(datasets)
        self.pipeline = [Resize((32, 32))]


@pytest.mark.parametrize(
    'loader',
    [{}, dict(num_workers=2, persistent_workers=True, prefetch_factor=4), dict(num_workers=2)],
)
def test_workers_see_a_switch(loader):
    """All images of an epoch are of its phase, none of the phase before."""
    dataset = Turned()
    phases = read_phases([dict(begin=i, resolution=8 * (i + 1), strength=i / 2) for i in range(3)])
    index = torch.zeros(1, dtype=torch.int64).share_memory_()
    assert install(dataset, phases, index) == dict(resolution=1, strength=1)
    batches = DataLoader(dataset, batch_size=2, **loader)
    for epoch in (0, 1, 2, 1):
        index.fill_(2 - epoch)
        next(iter(batches))  # what was loaded ahead before a break is not in the next epoch
        index.fill_(epoch)
        side = 8 * (epoch + 1)
        seen = list(batches)
        assert len(seen) == 3
        for batch in seen:
            assert batch.shape == (2, side, side, 3)
            corner = batch[:, 1, 1, 0], batch[:, 1, -2, 0]
            if epoch != 1:  # by half a turn of a quarter neither corner is clear-cut
                assert bool((corner[epoch // 2] == 255).all())
                assert bool((corner[1 - epoch // 2] == 0).all())


def test_what_is_changed():
    """Through wrappers of datasets and transforms; not a Resize that keeps the ratio, nor a strip."""
    inner = Turned(RandomApply([Resize((32, 32))]), Resize((32, 32), keep_ratio=True))
    strip = Turned(Resize((32, 16)))
    phases = read_phases([dict(begin=0, resolution=8), dict(begin=1, resolution=16)])
    index = torch.zeros(1, dtype=torch.int64)
    assert install(Wrapper(inner, strip), phases, index) == dict(resolution=4, strength=0)
    kinds = [type(t) for t in inner.pipeline.transforms]
    assert kinds == [RandomApply, Resize, Phased, AutoAugment]
    assert isinstance(inner.pipeline.transforms[0].transforms.transforms[0], Phased)
    assert [type(t) for t in strip.pipeline.transforms] == [Resize, Phased, AutoAugment]
    phased = inner.pipeline.transforms[2]
    assert [variant.scale for variant in phased] == [(8, 8), (16, 16)]
    index.fill_(1)
    assert phased(dict(img=np.zeros((64, 64, 3), np.uint8)))['img'].shape == (16, 16, 3)
    repeated = SimpleNamespace(dataset=Turned())  # as mmengine's RepeatDataset has it
    assert install(repeated, phases, index) == dict(resolution=1, strength=0)
    resize = type('Resize', (), dict(scale=[32, 32]))()  # another package's, without keep_ratio
    repeated.dataset.pipeline.transforms = [resize]
    assert install(repeated, phases, index) == dict(resolution=1, strength=0)


def test_augmentations_of_other_packages_are_not_changed():
    own = type('AutoAugment', (AutoAugment,), dict(__module__='mmpretrain.other'))
    foreign = type('AutoAugment', (), dict(__module__='torchvision.transforms'))
    rectangle = SimpleNamespace(scale=(16, 16))  # not a Resize
    phases, index = read_phases([dict(begin=0, strength=0.5)]), torch.zeros(1, dtype=torch.int64)
    dataset = SimpleNamespace(pipeline=Compose([]))
    dataset.pipeline.transforms = [own('imagenet'), foreign(), rectangle]
    assert install(dataset, phases, index) == dict(resolution=0, strength=1)
    assert type(dataset.pipeline.transforms[0]) is Phased
    assert dataset.pipeline.transforms[2] is rectangle
