"""Settings of data_preprocessor and of one-channel heads that fail in the first step of a run."""

import pytest
from mmengine.config import Config

from mobileone_mm.config import preprocessor
from mobileone_mm.config.preprocessor import check_one_channel, check_preprocessor
from mobileone_mm.errors import InputError

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
CROP = dict(type='RandomCrop', crop_size=(64, 96))
ENDS = [dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]


@pytest.fixture
def said(monkeypatch):
    """Return what was logged since the last call."""
    lines = []
    monkeypatch.setattr(preprocessor, 'print_log', lambda text, *_: lines.append(text))

    def take():
        text = '\n'.join(lines)
        lines.clear()
        return text

    return take


def check(settings, scope, steps=(), training=True, **model):
    dataset = dict(pipeline=[dict(type='LoadImageFromFile'), *steps, *ENDS])
    cfg = dict(
        default_scope=scope,
        model=dict(type='X', data_preprocessor=settings, **model),
        train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)),
    )
    check_preprocessor(Config(cfg), training)


def seg(**settings):
    return {'type': 'SegDataPreProcessor', 'size': (64, 96), **RGB, **settings}


@pytest.mark.parametrize(
    ('scope', 'kind'),
    [
        ('mmpretrain', {}),
        ('mmpretrain', dict(type='ClsDataPreprocessor')),
        ('mmdet', dict(type='DetDataPreprocessor')),
        ('mmseg', dict(type='mmseg.SegDataPreProcessor', size=(8, 8))),
    ],
)
def test_mean_and_std(scope, kind):
    for good in (RGB, dict(mean=(0,), std=(255.0,)), {}):
        check({**kind, **good}, scope)
    for bad, line in (
        (dict(mean=[1, 2]), r'data_preprocessor.mean: got \[1, 2\]; expected 1 or 3 numbers'),
        (dict(std=[1, 2, 3, 4]), r'\.std: got \[1, 2, 3, 4\]; expected 1 or 3 positive numbers'),
        (dict(std=[1, 0, 1]), r'\.std: got'),
        (dict(mean=[1, float('nan'), 1]), r'\.mean: got'),
        (dict(mean=['1', '2', '3']), r'\.mean: got'),
        (dict(mean=127.5), r'\.mean: got 127.5'),
        (dict(std=None), 'has mean and no std'),
    ):
        with pytest.raises(InputError, match=line):
            check({**kind, **RGB, **bad}, scope)


def test_mean_and_std_of_images_from_0_to_1(said):
    unit = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    check(unit, 'mmpretrain')
    assert 'data_preprocessor: mean and std are at most 1, but the images' in said()
    for steps, settings in (
        ([dict(type='torchvision/ToTensor')], unit),
        ([], dict(mean=[0], std=[1])),
        ([], dict(mean=[0, 0, 0], std=[255, 255, 255])),
        ([], dict(mean=[103.5, 116.3, 123.7], std=[1, 1, 1])),
    ):
        check(settings, 'mmpretrain', steps)
    assert said() == ''


def test_channels_that_are_not_rgb():
    four = dict(mean=[1] * 4, std=[1] * 4)
    check(four, 'mmpretrain', backbone=dict(in_channels=4))
    check(dict(type='MyPreprocessor', mean=[1, 2]), 'mmseg')
    with pytest.raises(InputError, match=r'^data_preprocessor\.mean'):
        check_preprocessor(Config(dict(default_scope='mmpretrain', data_preprocessor=four)), True)


@pytest.mark.parametrize(
    'steps',
    [
        [CROP],
        [dict(type='RandomResize', scale=(9, 9)), CROP],
        [dict(type='Resize', scale=(96, 64))],  # width, height
        [dict(type='Resize', scale=500), CROP],
        [dict(type='RandomCrop', crop_size=32), dict(type='Pad', size=(96, 64))],
    ],
)
def test_crop_and_size(steps, said):
    """The images have up to (64, 96) pixels, height first."""
    check(seg(), 'mmseg', steps)
    assert not said()
    for size in ((63, 96), (128, 95)):
        with pytest.raises(InputError, match=r'size: got \(\d+, \d+\), but .*up to \(64, 96\)'):
            check(seg(size=size), 'mmseg', steps)
        check(seg(size=size), 'mmseg', steps, training=False)
    check(seg(size=None, size_divisor=32), 'mmseg', steps)


@pytest.mark.parametrize(
    ('key', 'value'),
    [('crop_size', '64'), ('crop_size', [64, 64]), ('crop_size', (0, 64)),
     ('cat_max_ratio', 'abc'), ('cat_max_ratio', 75), ('cat_max_ratio', None)],
)  # fmt: skip
def test_arguments_of_the_crop(key, value):
    check(seg(), 'mmseg', [dict(CROP, cat_max_ratio=1)])
    with pytest.raises(InputError, match=rf'dataset\.pipeline\.1\.{key}: got .*; expected a '):
        check(seg(), 'mmseg', [{**CROP, key: value}])


def test_padding_is_a_warning(said):
    check(seg(size=(128, 96)), 'mmseg', [CROP])
    assert 'at least 50% of each batch is padding' in said()
    for steps in ([], [dict(type='RandomResize', scale=(9, 9))], [CROP, dict(type='Mine')]):
        check(seg(size=(8, 8)), 'mmseg', steps)  # nothing is known of the size
    assert not said()


@pytest.mark.parametrize(
    'more', [dict(size_divisor=32), dict(size=None), dict(size=64), dict(size=(8,))]
)
def test_size_of_segmentors(more):
    with pytest.raises(InputError, match=r'^model\.data_preprocessor'):
        check(seg(**more), 'mmseg')
    check(seg(**more), 'mmseg', training=False)


def test_heads_of_one_channel(said):
    pytest.importorskip('mmseg')
    softmax, sigmoid = (dict(type='CrossEntropyLoss', use_sigmoid=on) for on in (False, True))

    def check_head(**head):
        model = dict(type='X', decode_head=[dict(type='FCNHead', **head)])
        metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
        cfg = dict(default_scope='mmseg', model=model, val_evaluator=metric)
        check_one_channel(Config(cfg), 'val_evaluator')

    for loss in (sigmoid, [sigmoid, dict(type='DiceLoss')]):
        check_head(num_classes=1, loss_decode=loss)
        assert 'num_classes: got 1, with which IoUMetric counts all pixels' in said()
        check_head(num_classes=2, out_channels=1, loss_decode=loss)
    check_head(num_classes=2, loss_decode=softmax)
    assert not said()
    for head in (
        dict(num_classes=1), dict(num_classes=2, out_channels=1, loss_decode=[softmax]),
    ):  # fmt: skip
        with pytest.raises(
            InputError, match=r'decode_head\.0\.loss_decode: .*needs use_sigmoid=True'
        ):
            check_head(**head)
