"""The datasets of the hosts read the drawn ones, with the official class lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo.generator import CLASSES, make
from demo.generator.vocabulary import BY_NAME

COUNTS = {'num_train': 16, 'num_val': 8, 'size': 64}


def test_mmdet_reads_coco(tmp_path: Path) -> None:
    """With all 80 classes, and with the drawn ones only."""
    from mmdet.datasets import CocoDataset

    root = make('coco', tmp_path / 'coco', **COUNTS)
    options = dict(
        data_root=str(root),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=[],
    )
    few, every = CocoDataset(metainfo=dict(classes=CLASSES), **options), CocoDataset(**options)
    assert len(every) == 16
    assert len(every.metainfo['classes']) == 80
    seen = set()
    for index in range(16):
        one, two = (
            [
                data.metainfo['classes'][item['bbox_label']]
                for item in data.get_data_info(index)['instances']
            ]
            for data in (few, every)
        )
        assert one == two
        assert all(item['mask'] for item in every.get_data_info(index)['instances'])
        seen |= set(one)
    assert seen == set(CLASSES)


@pytest.mark.parametrize(
    'arguments', [{'split': 'train'}, {'data_prefix': 'train', 'ann_file': 'meta/train.txt'}]
)
def test_mmpretrain_reads_imagenet(arguments: dict, tmp_path: Path) -> None:
    from mmpretrain.datasets import ImageNet

    root = make('imagenet', tmp_path / 'imagenet', **COUNTS)
    data = ImageNet(data_root=str(root), **arguments)
    assert len(data) == 16
    assert len(data.CLASSES) == 1000
    for index in range(16):
        info = data.get_data_info(index)
        (thing,) = (t for t in BY_NAME.values() if t.wnid == Path(info['img_path']).parent.name)
        assert info['gt_label'] == thing.imagenet
        assert Path(info['img_path']).is_file()


@pytest.mark.parametrize(
    ('layout', 'kind', 'options', 'names'),
    [
        (
            'voc',
            'PascalVOCDataset',
            dict(
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
                ann_file='ImageSets/Segmentation/train.txt',
            ),
            {'background', 'aeroplane', 'bird', 'boat', 'bus', 'pottedplant'},
        ),
        (
            'ade',
            'ADE20KDataset',
            dict(data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')),
            {'sky', 'sea', 'boat', 'bus', 'airplane', 'animal', 'plant', 'plaything'},
        ),
    ],
)
def test_mmseg_reads_masks(layout, kind, options, names, tmp_path: Path) -> None:
    import mmseg.datasets

    load = dict(type='mmseg.LoadAnnotations', reduce_zero_label=layout == 'ade')
    data = getattr(mmseg.datasets, kind)(
        data_root=str(make(layout, tmp_path / layout, **COUNTS)),
        pipeline=[dict(type='LoadImageFromFile'), load],
        **options,
    )
    assert len(data) == 16
    values: set[int] = set()
    for index in range(16):
        assert data[index]['img'].shape == (64, 64, 3)
        values |= set(np.unique(data[index]['gt_seg_map']).tolist())
    found = {data.metainfo['classes'][value] for value in values - {255}}
    assert names == found if layout == 'voc' else names <= found
