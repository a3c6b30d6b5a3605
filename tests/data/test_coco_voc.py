"""Masks of VOC's classes from COCO's instances."""

import json

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools import mask as coco_mask

from helpers import write_files
from mobileone_mm.config.read import load_config
from mobileone_mm.data.convert.coco_to_voc import COCO_NAMES, paint_voc_mask, write_voc_masks

LABELS = {7: 15, 9: 12}  # a person and a dog


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def row(category, segmentation, **more):
    return dict(category_id=category, segmentation=segmentation, **more)


def rle(pixels, compressed):
    if compressed:
        return coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    flat = pixels.T.reshape(-1)
    ends = [0, *np.flatnonzero(np.diff(flat, prepend=False)), len(flat)]
    return dict(size=list(pixels.shape), counts=np.diff(ends).tolist())


def test_names_are_those_of_mmseg():
    from mmseg.datasets import PascalVOCDataset

    voc = PascalVOCDataset.METAINFO['classes'][1:]
    other = {c: v for c, v in zip(COCO_NAMES, voc, strict=True) if c != v}
    assert other == {
        'airplane': 'aeroplane', 'dining table': 'diningtable', 'motorcycle': 'motorbike',
        'potted plant': 'pottedplant', 'couch': 'sofa', 'tv': 'tvmonitor',
    }  # fmt: skip


@pytest.mark.parametrize('reverse', [False, True])
def test_overlaps(reverse):
    """An overlap of two classes is ignored, that of one class keeps it; others do not count."""
    boxes = [(7, 0, 0, 6, 4), (7, 4, 0, 8, 4), (9, 6, 2, 10, 6), (1, 0, 0, 12, 8)]
    rows = [row(category, box(*corners)) for category, *corners in boxes]
    mask = paint_voc_mask((8, 12), rows[::-1] if reverse else rows, LABELS)
    expected = np.zeros((8, 12), np.uint8)
    expected[0:4, 0:8] = 15
    expected[2:6, 6:10] = 12
    expected[2:4, 6:8] = 255
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize('compressed', [False, True])
def test_crowds_are_ignored_where_no_instance_is(compressed):
    crowd = np.zeros((8, 12), bool)
    crowd[1:7, 2:12] = True
    rows = [row(7, rle(crowd, compressed), iscrowd=1), row(9, box(0, 0, 4, 4), iscrowd=0)]
    mask = paint_voc_mask((8, 12), rows, LABELS)
    expected = np.zeros((8, 12), np.uint8)
    expected[crowd] = 255
    expected[0:4, 0:4] = 12
    assert np.array_equal(mask, expected)


@pytest.fixture
def coco(tmp_path):
    """A file of three images: a large dog, a small one, and a cake."""
    boxes = enumerate([(9, 30), (9, 4), (61, 30)], 1)
    table = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=40, width=60) for i in (1, 2, 3)],
        categories=[dict(id=9, name='dog'), dict(id=61, name='cake')],
        annotations=[
            row(kind, box(0, 0, a, a), id=i, image_id=i, bbox=[0, 0, a, a], area=a * a)
            for i, (kind, a) in boxes
        ],
    )
    return write_files(tmp_path, {'instances.json': json.dumps(table)}) / 'instances.json'


def test_tool(coco, tmp_path, tool, capsys):
    out = tmp_path / 'voc21' / 'train'
    assert tool('coco_to_voc', coco, out, '--min-pixels', 100) == 0
    assert capsys.readouterr().out.startswith('1 of 3 images: ')
    assert (tmp_path / 'voc21' / 'train.txt').read_text() == '1\n'
    assert [path.name for path in out.iterdir()] == ['1.png']
    mask = Image.open(out / '1.png')
    assert mask.mode == 'P'
    assert mask.getpalette()[3 * 12 : 3 * 13] == [64, 0, 128]  # VOC's color of dogs
    assert mask.getpalette()[-3:] == [224, 224, 192]  # and of ignored pixels
    assert np.count_nonzero(np.array(mask) == 12) == 900


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda t: t['categories'].pop(0), 'category_id 9 is not an id in'),
        (lambda t: t['categories'][0].update(name='hound'), "has none of COCO's names"),
        (lambda t: t['annotations'][0].pop('segmentation'), "image '1.jpg' cannot be read"),
        (lambda t: t['annotations'][0].update(segmentation=[[1, 2]]), "image '1.jpg' cannot"),
        (lambda t: t['annotations'][0].update(segmentation=dict(size=[2, 2], counts=[4])),
         "image '1.jpg' cannot"),
        (lambda t: t['annotations'].pop(0), 'no image of'),
        (lambda t: t['images'][0].update(file_name='../1.jpg'), "file_name: got '../1.jpg'; expected"),
        (lambda t: t['images'].append({**t['images'][0], 'id': 99, 'file_name': '1.png'}),
         "file_name: got '1.png'; '1.jpg' has the same mask"),
    ],
)  # fmt: skip
def test_bad_files(coco, tmp_path, tool, capsys, change, said):
    """One line, exit code 2, and no list that a training would take for whole."""
    assert tool('coco_to_voc', coco, tmp_path / 'out', '--min-pixels', -1) == 2
    assert '--min-pixels: got -1' in capsys.readouterr().err
    table = json.loads(coco.read_text())
    change(table)
    coco.write_text(json.dumps(table))
    assert tool('coco_to_voc', coco, tmp_path / 'out', '--min-pixels', 100) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count('\n') == 1
    assert not (tmp_path / 'out.txt').exists()


@pytest.fixture(scope='module')
def painted(real_data, tmp_path_factory):
    """A COCO root with masks of genuine images, and the counts that the writer returns."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'train2017').symlink_to(real_data / 'coco' / 'train2017')
    annotations = real_data / 'coco' / 'annotations' / 'instances_train2017.json'
    return root, *write_voc_masks(annotations, root / 'voc21' / 'train2017')


def test_real_images(real_data, painted):
    """Against masks that another program painted from the same annotations, at another size."""
    root, written, total = painted
    assert total == 80
    names = (root / 'voc21' / 'train2017.txt').read_text().split()
    assert len(names) == written
    compared, other = 0, real_data / 'coco_voc21' / 'SegmentationClass'
    for path in (other / f'{name}.png' for name in names):
        if path.exists():
            theirs, ours = Image.open(path), Image.open(root / 'voc21' / 'train2017' / path.name)
            ours = np.array(ours.resize(theirs.size, Image.Resampling.NEAREST))
            theirs = np.array(theirs)
            known = (ours != 255) & (theirs != 255)
            assert np.mean(ours[known] == theirs[known]) > 0.999, path
            assert np.mean(ours == 255) < np.mean(theirs == 255) + 0.2, path
            compared += 1
    assert compared >= 30


@pytest.mark.parametrize('choice', ['trainaug_coco', 'coco'])
def test_configs_read_them(choice, real_data, painted, tmp_path, own_scope, monkeypatch):
    voc, source = tmp_path / 'voc', real_data / 'VOCdevkit' / 'VOC2012'
    lists = voc / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    (voc / 'JPEGImages').symlink_to(source / 'JPEGImages')
    for name in ('SegmentationClass', 'SegmentationClassAug'):
        (voc / name).symlink_to(source / 'SegmentationClass')
    for name in ('train', 'val', 'aug'):
        (lists / f'{name}.txt').write_text('2011_000003\n')
    for name, value in (('VOC_TRAIN', choice), ('VOC_ROOT', voc), ('COCO_ROOT', painted[0])):
        monkeypatch.setenv(name, str(value))
    cfg = load_config('configs/deeplabv3_mobileone_s0_voc.py', {}, needs=('train_dataloader',))
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == painted[1] + (2 if choice == 'trainaug_coco' else 0)
    sample = dataset[len(dataset) - 1]
    assert max(sample['inputs'].shape) <= 512
    assert sample['inputs'].shape[1:] == sample['data_samples'].gt_sem_seg.data.shape[1:]
    assert set(sample['data_samples'].gt_sem_seg.data.unique().tolist()) <= {*range(21), 255}
    assert cfg.val_dataloader.dataset.data_root == str(voc)


@pytest.mark.parametrize(
    ('segmentation', 'said'),
    [
        ([[0, 0, float('nan'), 9, 9, 9]], 'a polygon has NaN, or lies far outside the image'),
        ([[0, 0, 1e9, 0, 9, 9]], 'a polygon has NaN, or lies far outside the image'),
        ({'counts': [1, 2], 'size': [4, 5]}, 'the counts of an RLE do not add up to 20 pixels'),
        ({'counts': [30, -10], 'size': [4, 5]}, 'the counts of an RLE do not add up'),
        ([[0, 0, 'x', 9]], 'could not convert'),
    ],
)
def test_outlines_that_break_pycocotools(segmentation, said):
    row = dict(id=7, category_id=1, segmentation=segmentation)
    with pytest.raises(ValueError, match=f'^annotation 7: .*{said}'):
        paint_voc_mask((4, 5), [row], {1: 1})
