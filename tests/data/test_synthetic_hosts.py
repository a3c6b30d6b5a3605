"""The hosts' own datasets read the drawn ones, with the official class lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo.generator import CLASSES, make_ade, make_coco, make_imagenet, make_voc
from demo.generator.vocabulary import BY_NAME

COUNTS = {'num_train': 16, 'num_val': 8, 'size': 64}


def test_mmdet_reads_coco(tmp_path: Path) -> None:
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset

    root = make_coco(tmp_path / 'coco', **COUNTS)
    data = CocoDataset(
        data_root=str(root),
        ann_file='annotations/instances_train2017.json',
        data_prefix={'img': 'train2017/'},
        pipeline=[],
    )
    assert len(data) == 16
    names = data.metainfo['classes']
    assert len(names) == 80
    labels = {
        item['bbox_label'] for index in range(16) for item in data.get_data_info(index)['instances']
    }
    assert {names[label] for label in labels} == set(CLASSES)
    first = data.get_data_info(0)['instances']
    assert names[first[0]['bbox_label']] in CLASSES
    assert all(item['mask'] for item in first)


def test_mmdet_reads_coco_with_the_drawn_classes_only(tmp_path: Path) -> None:
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset

    root = make_coco(tmp_path / 'coco', **COUNTS)
    options = {
        'data_root': str(root),
        'ann_file': 'annotations/instances_val2017.json',
        'data_prefix': {'img': 'val2017/'},
        'pipeline': [],
    }
    few, all_80 = CocoDataset(metainfo={'classes': CLASSES}, **options), CocoDataset(**options)
    for index in range(8):
        one, two = (
            [
                data.metainfo['classes'][item['bbox_label']]
                for item in data.get_data_info(index)['instances']
            ]
            for data in (few, all_80)
        )
        assert one == two


@pytest.mark.parametrize(
    'arguments', [{'split': 'train'}, {'data_prefix': 'train', 'ann_file': 'meta/train.txt'}]
)
def test_mmpretrain_reads_imagenet(arguments: dict, tmp_path: Path) -> None:
    pytest.importorskip('mmpretrain')
    from mmpretrain.datasets import ImageNet

    root = make_imagenet(tmp_path / 'imagenet', **COUNTS)
    data = ImageNet(data_root=str(root), **arguments)
    assert len(data) == 16
    assert len(data.CLASSES) == 1000
    for index in range(16):
        info = data.get_data_info(index)
        (thing,) = (t for t in BY_NAME.values() if t.wnid == Path(info['img_path']).parent.name)
        assert info['gt_label'] == thing.imagenet
        assert Path(info['img_path']).is_file()


def _loaded(data: object, count: int) -> set[int]:
    values: set[int] = set()
    for index in range(count):
        sample = data[index]  # type: ignore[index]
        assert sample['img'].shape == (64, 64, 3)
        values |= set(np.unique(sample['gt_seg_map']).tolist())
    return values


def test_mmseg_reads_voc(tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    from mmseg.datasets import PascalVOCDataset

    root = make_voc(tmp_path / 'VOCdevkit' / 'VOC2012', **COUNTS)
    data = PascalVOCDataset(
        data_root=str(root),
        data_prefix={'img_path': 'JPEGImages', 'seg_map_path': 'SegmentationClass'},
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations'}],
    )
    assert len(data) == 16
    names = data.metainfo['classes']
    found = {names[value] for value in _loaded(data, 16) - {255}}
    assert found == {'background', 'aeroplane', 'bird', 'boat', 'bus', 'pottedplant'}


def test_mmseg_reads_ade(tmp_path: Path) -> None:
    pytest.importorskip('mmseg')
    from mmseg.datasets import ADE20KDataset

    root = make_ade(tmp_path / 'ADEChallengeData2016', **COUNTS)
    data = ADE20KDataset(
        data_root=str(root),
        data_prefix={'img_path': 'images/training', 'seg_map_path': 'annotations/training'},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'mmseg.LoadAnnotations', 'reduce_zero_label': True},
        ],
    )
    assert len(data) == 16
    names = data.metainfo['classes']
    found = {names[value] for value in _loaded(data, 16) - {255}}
    assert {'sky', 'sea', 'boat', 'bus', 'airplane', 'animal', 'plant', 'plaything'} <= found
