"""Channels of neck and heads against those of the backbone."""

import pytest
from torch import nn

from mobileone_mm import MobileOne
from mobileone_mm.errors import InputError
from mobileone_mm.models.channels import check_channels


@pytest.fixture(scope='module')
def model():
    holder = nn.Module()
    holder.backbone = MobileOne('mu0', out_indices=(2, 3))
    return holder


def cfg(**parts):
    backbone = dict(type='mobileone_mm.MobileOne', arch='mu0', out_indices=(2, 3))
    return dict(backbone=backbone) | parts


@pytest.mark.parametrize(
    'parts',
    [
        dict(neck=dict(in_channels=(128, 384)), bbox_head=dict(in_channels=99)),
        dict(neck=dict(type='GlobalAveragePooling'), head=dict(in_channels=384)),
        dict(head=dict(type='EfficientHead')),
        dict(decode_head=dict(in_channels=384, in_index=1)),
        dict(decode_head=dict(in_channels=384)),
        dict(decode_head=dict(in_channels=[128, 384], in_index=[0, 1])),
        dict(decode_head=[dict(in_channels=384), dict(in_channels=384)]),
        dict(auxiliary_head=[dict(in_channels=128, in_index=0)]),
        dict(neck=[dict(type='FPN', in_channels=[128, 384])], decode_head=dict(in_channels=1)),
        dict(neck=[dict(type='GlobalAveragePooling'), dict(type='X')], head=dict(in_channels=1)),
    ],
)
def test_what_fits(parts, model):
    check_channels(cfg(**parts), model)


POOLING = dict(type='GlobalAveragePooling')
WRONG = [
    (
        dict(neck=dict(in_channels=(256, 1024))),
        r"neck\.in_channels: got \[256, 1024\], but the backbone of size 'mu0' gives \[128, 384\]",
    ),
    (dict(neck=[dict(in_channels=[384]), {}]), r'neck\.0\.in_channels: got \[384\]'),
    (dict(neck=POOLING, head=dict(in_channels=1024)), r'head\.in_channels: got 1024, .* gives 384'),
    (
        dict(decode_head=dict(in_channels=384, in_index=0)),
        r'decode_head\.in_channels: got 384, .* gives 128',
    ),
    (
        dict(decode_head=dict(in_channels=384, in_index=3)),
        'decode_head.in_channels: its in_index is 3, but the backbone has 2 outputs',
    ),
    (
        dict(auxiliary_head=[dict(in_channels=384), dict(in_channels=64, in_index=0)]),
        r'auxiliary_head\.1\.in_channels: got 64, .* gives 128',
    ),
    (
        dict(decode_head=dict(in_channels=(128, 64), in_index=(0, 1))),
        r'decode_head\.in_channels: got \[128, 64\], .* gives \[128, 384\]',
    ),
    (dict(head=dict(in_channels=1), backbone=dict(arch={})), '.* but the backbone gives 384'),
]


@pytest.mark.parametrize(('parts', 'said'), WRONG)
def test_what_does_not(parts, said, model):
    with pytest.raises(InputError, match=rf'^model\.{said}'):
        check_channels(cfg(**parts), model)


def test_other_backbones_are_left_alone():
    holder = nn.Module()
    holder.backbone = nn.Conv2d(3, 8, 3)
    check_channels(dict(backbone={}, head=dict(in_channels=1)), holder)
