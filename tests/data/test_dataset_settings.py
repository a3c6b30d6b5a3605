"""Settings of datasets with a wrong type: one line, where the hosts fail or ignore them."""

import json

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from helpers import write_files
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.data.coco import forget_coco_files
from mobileone_mm.errors import InputError

CLS, DET, SEG, VOC = (
    'mmpretrain.CustomDataset',
    'mmdet.CocoDataset',
    'mmseg.BaseSegDataset',
    'mmdet.VOCDataset',
)
#: settings of a dataset that is fine
FINE = {
    CLS: dict(data_prefix='train'),
    DET: dict(
        ann_file='boxes.json',
        data_prefix=dict(img='train/red/'),
        metainfo=dict(classes=('red',)),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
    ),
    SEG: dict(
        data_prefix=dict(img_path='train/red', seg_map_path='masks'),
        metainfo=dict(classes=('a', 'b')),
    ),
    VOC: dict(ann_file='list.txt', data_prefix=dict(sub_data_root='.')),
}  # fmt: skip


@pytest.fixture
def checked(tmp_path, fresh_mmengine):
    images = [dict(id=i, file_name=f'{i}.jpg', height=64, width=64) for i in range(3)]
    rows = [dict(id=i + 1, image_id=i, category_id=1, bbox=[5, 5, 9, 9], area=81) for i in range(3)]
    table = dict(images=images, annotations=rows, categories=[dict(id=1, name='red')])
    names = (f'train/red/{i}.jpg' for i in range(3))
    lists = {'list.txt': '0\n', 'Annotations/0.xml': '', 'boxes.json': json.dumps(table)}
    write_files(tmp_path, {**dict.fromkeys(names, ''), **lists})
    remote = [dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'))]

    def check(kind, **changed):
        init_default_scope(kind.partition('.')[0])
        settings = dict(type=kind, data_root=str(tmp_path), pipeline=remote)
        settings |= {**FINE[kind], **changed}
        check_data(Config(dict(train_dataloader=dict(dataset=settings))), ['train_dataloader'])

    yield check
    forget_coco_files()


@pytest.mark.parametrize(
    ('kinds', 'key', 'value', 'said'),
    [
        ((CLS, DET, SEG, VOC), 'ann_file', ['a.json'], r"got \['a.json'\]; expected a path"),
        ((CLS, DET, SEG, VOC), 'ann_file', 3, 'got 3; expected a path'),
        ((DET, VOC), 'ann_file', '', "got ''; expected a file"),
        ((CLS, DET, SEG), 'data_root', 3, 'got 3; expected a path'),
        ((DET, SEG, VOC), 'data_prefix', 'x/', "got 'x/'; expected a dict of folders"),
        ((CLS, DET, SEG), 'data_prefix', None, 'got None; expected a dict of folders'),
        ((CLS,), 'data_prefix', ['x/'], r"got \['x/'\]; expected a dict of folders"),
        ((DET,), 'data_prefix', dict(img_path='x/'), "got {'img_path': 'x/'}; .* the images as 'img'"),
        ((SEG,), 'data_prefix', dict(img='x/'), "the images as 'img_path'"),
        ((CLS, DET, SEG), 'filter_cfg', 'x', "got 'x'; expected a dict such as"),
        ((DET, VOC), 'indices', 0, 'got 0; expected'),
        ((CLS, DET, SEG), 'indices', [], r'got \[\]; expected'),
        ((CLS, DET, SEG), 'indices', '5', "got '5'; expected an integer or a list"),
        ((CLS, DET, SEG), 'indices', True, 'got True; expected an integer or a list'),
        ((CLS, DET, SEG), 'indices', [0, 50], 'got 50; expected 0 to 2, as the dataset has 3'),
        ((CLS, DET, SEG), 'test_mode', 'False', "got 'False'; expected True or False"),
        ((CLS, DET, SEG), 'pipeline', dict(type='X'), r"got \{'type': 'X'\}; expected a list"),
    ],
)  # fmt: skip
def test_types(kinds, key, value, said, checked):
    for kind in kinds:
        with pytest.raises(
            InputError, match=rf'^train_dataloader\.dataset\.{key}: .*{said}'
        ) as caught:
            checked(kind, **{key: value})
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('filters', 'said'),
    [
        (dict(filter_empty=True), r"filter_cfg: nothing reads 'filter_empty'; allowed: bbox_min_size"),
        (dict(filter_emtpy_gt=True), "'filter_emtpy_gt'; did you mean 'filter_empty_gt'"),
        (dict(min_size='32'), r"filter_cfg\.min_size: got '32'; expected a number of pixels"),
        (dict(filter_empty_gt=1), r'filter_cfg\.filter_empty_gt: got 1; expected True or False'),
        (dict(bbox_min_size=True), r'filter_cfg\.bbox_min_size: got True; expected a number'),
    ],
)  # fmt: skip
def test_filters(filters, said, checked):
    for kind in (DET, VOC):
        with pytest.raises(InputError, match=said):
            checked(kind, filter_cfg=filters)


def test_settings_that_are_fine(checked):
    for kind in (CLS, DET, SEG):
        for changed in ({}, dict(indices=[0, -3]), dict(indices=2), dict(filter_cfg=None)):
            checked(kind, **changed)
    checked(CLS, data_prefix=dict(img_path='train'))


def test_a_class_of_the_user_takes_what_it_wants(checked, monkeypatch):
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.registry import DATASETS

    class Own(CustomDataset):
        def __init__(self, indices='all', **settings):
            super().__init__(**settings)

    monkeypatch.setitem(DATASETS.module_dict, 'Own', Own)
    monkeypatch.setitem(FINE, 'mmpretrain.Own', FINE[CLS])
    checked('mmpretrain.Own', indices='all')
