"""All parts of a segmentor ignore the same number of a mask, and a threshold is from 0 to 1."""

import pytest
from mmengine.config import Config

from mobileone_mm.config.seg_heads import check_seg_heads
from mobileone_mm.errors import InputError


def check(head=(), other=(), metric=(), training=True, resize='RandomResize', **preprocessor):
    pytest.importorskip('mmseg')
    heads = [{'type': 'FCNHead', 'num_classes': 3, **dict(given)} for given in (head, other)]
    model = dict(type='X', decode_head=heads[:1], auxiliary_head=heads[1:])
    preprocessor = dict(type='SegDataPreProcessor', **preprocessor)
    cfg = dict(
        train_dataloader=dict(dataset=dict(pipeline=[dict(type=resize), dict(type='PackSegInputs')])),
        default_scope='mmseg', model=model, data_preprocessor=preprocessor,
        val_evaluator=[dict(type='IoUMetric', **dict(metric)), dict(type='CityscapesMetric')],
    )  # fmt: skip
    check_seg_heads(Config(cfg), 'val_evaluator', training)


@pytest.mark.parametrize('number', [0, 250])
def test_numbers_that_differ(number):
    own, pad = dict(ignore_index=number), dict(seg_pad_val=number)
    check()
    check(own, own, own, **pad)
    check(seg_pad_val=0)  # a class
    check(dict(num_classes=None), seg_pad_val=0)
    check(own, own, own, training=False)
    check(own, own, own, resize='RandomFlip')
    advice = f'model.decode_head.0 ignores the pixels of the number {number}; set it to {number}$'
    for given, path in (
        ((own, {}, own), 'model.auxiliary_head.0.ignore_index'),
        ((own, own), 'val_evaluator.0.ignore_index'),
        ((own, own, own), 'data_preprocessor.seg_pad_val'),
    ):
        with pytest.raises(InputError, match=f'^{path}: got 255, but {advice}'):
            check(*given)
    with pytest.raises(InputError, match='^val_evaluator.0.ignore_index.* set it to 255$'):
        check(metric=own)


def test_thresholds():
    for good in (None, 0, 0.5, 1):
        check(dict(threshold=good))
    for bad in (1.5, -0.1, '0.5', True):
        with pytest.raises(InputError, match=r'decode_head\.0\.threshold: got .* from 0 to 1'):
            check(dict(threshold=bad))


def test_a_model_without_heads():
    check_seg_heads(Config(dict(model=dict(type='X', decode_head=3))), 'val_evaluator', True)
