"""Weights of losses: one line before the run, for every loss below a head."""

import json
import math

import numpy as np
import pytest
from mmengine.config import Config

from mobileone_mm.config.losses import check_losses
from mobileone_mm.errors import InputError

CLS, DET, SEG = 'mmpretrain', 'mmdet', 'mmseg'


def config(scope, part, loss, key='loss', **head):
    return Config(dict(default_scope=scope, model={part: {'num_classes': 3, key: loss, **head}}))


def loss(**given):
    return dict(type='CrossEntropyLoss', **given)


@pytest.mark.parametrize(
    ('scope', 'key', 'settings', 'sizes'),
    [
        (CLS, 'loss', {}, {3}),
        (CLS, 'loss', dict(use_sigmoid=True), {3}),
        (DET, 'loss_cls', dict(use_sigmoid=True), {3}),
        (DET, 'loss_cls', {}, {4}),
        (DET, 'loss_seg', {}, {3, 4}),
        (SEG, 'loss_decode', {}, {3}),
        (SEG, 'loss_decode', dict(use_sigmoid=True), {1}),
        (SEG, 'loss_cls', dict(type='mmdet.CrossEntropyLoss'), {4}),
    ],
)
def test_how_many_weights(scope, key, settings, sizes):
    for count in range(6):
        weights = loss(class_weight=[1.0] * count)
        cfg = config(scope, 'head', {**weights, **settings}, key)
        if count in sizes:
            check_losses(cfg)
            continue
        said = rf'^model\.head\.{key}\.class_weight: got {count} weights, but .* is 3; the loss'
        with pytest.raises(InputError, match=said):
            check_losses(cfg)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (dict(class_weight=[1, 2, -1]), r'class_weight\.2: got -1; expected a number of at least 0'),
        (dict(class_weight=[1, math.nan, 1]), r'class_weight\.1: got nan'),
        (dict(class_weight=[math.inf, 1, 1]), r'class_weight\.0: got inf'),
        (dict(class_weight=['1', 1, 1]), r"class_weight\.0: got '1'"),
        (dict(class_weight=[True, 1, 1]), r'class_weight\.0: got True'),
        (dict(class_weight=[0, 0.0, 0]), 'class_weight: all weights are 0'),
        (dict(class_weight=2.0), r'class_weight: got 2\.0; expected a list'),
        (dict(class_weight='balanced'), r"class_weight: got 'balanced'; expected a list"),
        (dict(class_weight=dict(a=1)), r"class_weight: got \{'a': 1\}; expected a list"),
        (dict(pos_weight=[1, 2]), r'pos_weight: got 2 weights, but .* the loss needs 3$'),
        (dict(pos_weight=-2), r'pos_weight: got -2'),
        *((dict(loss_weight=value), r'loss_weight: got .*; expected a number of at least 0')
          for value in ([1.0], '1', math.nan, -1, None, True)),
    ],
)  # fmt: skip
def test_weights_that_are_none(given, said):
    """Also of the second loss of a list, and of a loss inside another one."""
    with pytest.raises(InputError, match=rf'^model\.head\.loss\.{said}'):
        check_losses(config(CLS, 'head', loss(**given)))
    with pytest.raises(InputError, match=rf'^model\.head\.loss\.1\.loss\.{said}'):
        check_losses(config(CLS, 'head', [loss(), dict(type='Own', loss=loss(**given))]))


def test_weights_that_are_good():
    check_losses(Config({}))
    check_losses(config(CLS, 'head', loss(pos_weight=2.0, loss_weight=0, class_weight=None)))
    check_losses(config(DET, 'bbox_head', loss(class_weight=1.0), 'loss_cls'))  # of DETRHead
    # The number of classes is not in the config.
    check_losses(config(DET, 'rpn_head', loss(class_weight=[1.0]), 'loss_cls', num_classes=None))
    check_losses(config(SEG, 'decode_head', loss(class_weight=[1.0]), out_channels=1))
    # SAN's scores have a class more than the head.
    head = config(SEG, 'decode_head', loss(class_weight=[1.0] * 4), 'loss_decode')
    head.model.decode_head.type = 'mmseg.SideAdapterCLIPHead'
    check_losses(head)
    # No loss: mmdet's samplers have the keys, too.
    check_losses(Config(dict(model=dict(train_cfg=dict(pos_weight=-1, type='A')))))


def test_files_of_mmseg(tmp_path):
    np.save(tmp_path / 'good.npy', [1.0, 2.0, 3.0])
    (tmp_path / 'good.json').write_text('[1, 2, 3]')
    (tmp_path / 'short.json').write_text('[1, 2]')
    (tmp_path / 'nan.json').write_text(json.dumps([1, 2, math.nan]))
    for name, said in (
        ('good.npy', None),
        ('good.json', None),
        ('other.pkl', None),  # it could run code
        ('short.json', r'class_weight: got 2 weights, but .* is 3; the loss needs 3'),
        ('nan.json', r'class_weight\.2: got nan'),
        ('gone.npy', r"class_weight: '.*gone\.npy' cannot be read"),
        ('names.txt', r"class_weight: '.*names\.txt' cannot be read"),
    ):
        cfg = config(SEG, 'decode_head', loss(class_weight=str(tmp_path / name)), 'loss_decode')
        if said is None:
            check_losses(cfg)
        else:
            with pytest.raises(InputError, match=rf'^model\.decode_head\.loss_decode\.{said}'):
                check_losses(cfg)
