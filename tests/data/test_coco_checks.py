"""What the checks say of a COCO file: categories, paths, boxes that the host leaves out, evaluators."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

from mobileone_mm.data.checks import coco_boxes, numbering
from mobileone_mm.data.checks.coco_file import check_coco
from mobileone_mm.data.checks.evaluator import check_evaluator
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.data.checks.numbering import check_class_lists
from mobileone_mm.data.coco import forget_coco_files, use_coco_reader
from mobileone_mm.data.datasets import DatasetConfig
from mobileone_mm.errors import InputError

CLASSES = ('red', 'blue')
CATEGORIES = [dict(id=5, name='red'), dict(id=2, name='blue')]
REMOTE = [dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'))]  # no image is needed


def table_of(boxes, images=3, size=100, **more):
    """Return a COCO file with some boxes in each image, the classes in turns."""
    rows = [
        dict(image_id=image, category_id=CATEGORIES[place % 2]['id'], area=25, iscrowd=0) | box
        for image in range(images)
        for place, box in enumerate(boxes)
    ]
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=size, width=size) for i in range(images)],
        annotations=[{'id': number, **row} for number, row in enumerate(rows)],
        categories=CATEGORIES,
        **more,
    )


GOOD = dict(bbox=[10, 10, 5, 5])
RED_AND_BLUE = [GOOD, GOOD]


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(coco_boxes, 'print_log', lambda text, *_: lines.append(text))
    return lines


@pytest.fixture
def checked(tmp_path):
    from mmdet.datasets import CocoDataset

    def check(table, name='boxes.json', **settings):
        (tmp_path / name).write_text(json.dumps(table))
        metainfo = dict(classes=settings.pop('classes', CLASSES))
        given = dict(data_root=str(tmp_path), ann_file=name, metainfo=metainfo, pipeline=REMOTE)
        given |= settings
        return check_coco(DatasetConfig('train_dataloader.dataset', given, CocoDataset))

    yield check
    forget_coco_files()


BAD = {
    'area of 0 or less': dict(area=0),
    'width or height below 1 px': dict(bbox=[10, 10, -5, 5]),
    'outside the image': dict(bbox=[120, 10, 5, 5]),
    'ignore': dict(ignore=1),
    'crowd': dict(iscrowd=1),
}


@pytest.mark.parametrize(('reason', 'change'), BAD.items())
def test_boxes_that_the_host_leaves_out(reason, change, checked, said):
    bad = {**GOOD, **change}
    with pytest.raises(InputError, match=rf'none of the 6 boxes is used: {reason} 6; '):
        checked(table_of([bad, bad]))
    with pytest.raises(InputError, match=rf"none of the 3 boxes of 'blue' is used: {reason} 3; "):
        checked(table_of([GOOD, bad]))
    summary = checked(table_of([GOOD, GOOD, bad]))
    assert summary.left_out == {reason: 3}
    assert summary.by_class == {'red': 3, 'blue': 3}
    assert f'3 of 9 boxes are not used: {reason} 3' in ' '.join(said)


@pytest.mark.parametrize('seed', range(3))
def test_the_counts_are_those_of_the_host(seed, checked, tmp_path):
    """Random rows, read by mmdet's dataset."""
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(seed)
    boxes = [
        dict(
            bbox=[*rng.uniform(-30, 110, 2), *rng.uniform(-2, 40, 2)],
            area=float(rng.choice([0, -1, 3, 9], p=[0.1, 0.1, 0.4, 0.4])),
            iscrowd=int(rng.random() < 0.2),
            ignore=int(rng.random() < 0.2),
            category_id=[5, 2, 9][place % 3],
        )
        for place in range(60)
    ]
    table = table_of([*RED_AND_BLUE, *boxes]) | dict(
        categories=[*CATEGORIES, dict(id=9, name='dog')]
    )
    summary = checked(table)
    use_coco_reader()
    meta = dict(classes=CLASSES)
    data = CocoDataset(
        str(tmp_path / 'boxes.json'),
        data_prefix=dict(img='images'),
        metainfo=meta,
        pipeline=[],
        serialize_data=False,
    )
    kept = [box for row in data.data_list for box in row['instances'] if not box['ignore_flag']]
    labels = np.bincount([box['bbox_label'] for box in kept], minlength=2)
    assert list(summary.by_class.values()) == labels.tolist()
    assert sum(summary.left_out.values()) + len(kept) == len(table['annotations'])


def test_the_evaluation_counts_other_boxes(checked):
    """pycocotools needs neither the area of a box nor `ignore`."""
    rows = [GOOD, GOOD, {**GOOD, 'area': 0}, {**GOOD, 'ignore': 1}, {**GOOD, 'iscrowd': 1}]
    assert checked(table_of(rows), test_mode=True).left_out == {'crowd': 3}
    assert sum(checked(table_of(rows)).left_out.values()) == 9


def test_a_part_as_in_published_datasets_is_no_warning(checked, said):
    crowds, tiny = [{**GOOD, 'iscrowd': 1}] * 2, [{**GOOD, 'bbox': [10, 10, 0.5, 5]}]
    many = [dict(bbox=[10, 10 + place / 2, 5, 5]) for place in range(120)]
    checked(table_of(many + crowds + tiny))
    assert not said
    checked(table_of(many + crowds * 8 + tiny * 2))
    assert 'below 1 px 6' in ' '.join(said)


def test_corners_instead_of_sizes(checked, said):
    corners = [dict(bbox=[40, 50, 80, 90]), dict(bbox=[60, 10, 90, 30])]
    with pytest.raises(
        InputError, match=r'6 of 6 boxes leave their image, and all fit as x1, y1, x2'
    ):
        checked(table_of(corners))
    checked(table_of([*RED_AND_BLUE, dict(bbox=[90, 90, 20, 20])]))
    assert '3 of 9 boxes leave their image by more than 1 px; bbox is x, y, width' in said[0]


def test_categories(checked):
    """The advice works when it is done."""
    file, rows = table_of(RED_AND_BLUE), CATEGORIES
    for categories, said, done in (
        (
            rows[:1],
            r"the class 'blue'; add a row .*'blue'.* after 'red'",
            [*rows[:1], dict(id=1, name='blue')],
        ),
        (
            rows[1:],
            r"the class 'red'; add a row .*'red'.* before 'blue'",
            [dict(id=1, name='red'), *rows[1:]],
        ),
        (rows[::-1], r"put the rows of its 'categories' in the order 'red', 'blue'", rows),
        (
            [dict(id=0, name='red'), *rows],
            r"'red' 2 times \(ids 0, 5\); remove the row with the id 0",
            rows,
        ),
        ([rows[0], dict(id=2, name='Blue')], "it has 'Blue': use the same name", rows),
        (
            [dict(id=5, name='cat'), dict(id=2, name='dog')],
            r"it has 'cat', 'dog': set metainfo",
            rows,
        ),
    ):
        known = {row['id'] for row in categories}
        boxes = [box for box in file['annotations'] if box['category_id'] in known]
        with pytest.raises(InputError, match=said):
            checked({**file, 'categories': categories, 'annotations': boxes})
        known = {row['id'] for row in done}
        boxes = [
            {**box, 'category_id': box['category_id'] if box['category_id'] in known else 1}
            for box in file['annotations']
        ]
        assert checked({**file, 'categories': done, 'annotations': boxes}).by_class == {
            'red': 3,
            'blue': 3,
        }
    assert checked(file, classes=('blue',)).left_out == {'category not in use': 3}


def test_a_class_without_a_box_is_a_warning(checked, said):
    checked(table_of([GOOD]))
    assert "no box of 'blue'" in ' '.join(said)
    said.clear()
    checked(table_of([GOOD]), test_mode=True)  # usual in a small validation file
    assert not said


@pytest.mark.parametrize('name', ['../x.jpg', 'a/../../x.jpg', '/etc/x.jpg'])
def test_images_stay_in_their_folder(name, checked):
    file = table_of(RED_AND_BLUE)
    file['images'][1]['file_name'] = name
    with pytest.raises(InputError, match=r'images\[1\]\.file_name: got .*; expected a path below'):
        checked(file, data_prefix=dict(img='images'))
    file['images'][1]['file_name'] = 'a/../x..jpg'
    checked(file, data_prefix=dict(img='images'))


def test_objects_in_images_that_are_left_out(checked):
    filters, file = dict(filter_cfg=dict(min_size=32)), table_of([GOOD, GOOD])
    file['images'][0]['width'] = 31
    assert checked(file, **filters).left_out == {'image below filter_cfg.min_size': 2}
    assert checked(file, test_mode=True, **filters).left_out == {}
    file['annotations'] = [row for n, row in enumerate(file['annotations']) if n in (0, 1, 2)]
    with pytest.raises(
        InputError, match=r"boxes of 'blue' is used: image below filter_cfg.min_size 1"
    ):
        checked(file, **filters)


def test_a_negative_area_is_not_evaluated(checked):
    file = table_of([GOOD, GOOD, {**GOOD, 'area': -1}])
    assert checked(file, test_mode=True).left_out == {'negative area': 3}


def test_rows_that_stand_twice(checked, said):
    file = table_of(RED_AND_BLUE)
    file['annotations'] += [{**row, 'id': row['id'] + 100} for row in file['annotations'][:2]]
    checked(file)
    assert said[0].endswith('2 of 8 boxes stand in their image twice, with the same class')
    file['images'][2]['file_name'] = '0.jpg'
    with pytest.raises(InputError, match=r"images\[0\] and images\[2\] are both '0.jpg'"):
        checked(file)


def test_names_that_look_the_same(checked):
    file = table_of(RED_AND_BLUE)
    file['categories'] = [dict(id=5, name='gro\u0308n'), dict(id=2, name='blue')]
    with pytest.raises(InputError, match=r"it has .* \('gro\\u0308n', not 'gr\\xf6n'\)"):
        checked(file, classes=('gr\xf6n', 'blue'))


def test_absolute_paths_without_a_folder(checked, tmp_path):
    file = table_of(RED_AND_BLUE)
    for row in file['images']:
        row['file_name'] = str(tmp_path / row['file_name'])
    with pytest.raises(InputError, match=r"the image '.*0.jpg', .* does not exist \(3 of 3"):
        checked(file, data_root='', ann_file=str(tmp_path / 'boxes.json'), pipeline=[])


@pytest.fixture
def evaluated(tmp_path, own_scope):
    from mmdet.datasets import CocoDataset

    DefaultScope.get_instance('evaluators', scope_name='mmdet')
    own = table_of(RED_AND_BLUE)

    def check(other, evaluator=lambda metric: metric, loader=None, **settings):
        for name, table in (('own.json', own), ('other.json', other)):
            (tmp_path / name).write_text(json.dumps(table))
        metric = dict(type='CocoMetric', ann_file=str(tmp_path / 'other.json'))
        cfg = Config(dict(val_evaluator=evaluator(metric), val_dataloader=loader))
        given = dict(
            ann_file=str(tmp_path / 'own.json'), metainfo=dict(classes=CLASSES), **settings
        )
        check_evaluator(
            cfg, 'val_evaluator', DatasetConfig('val_dataloader.dataset', given, CocoDataset)
        )

    yield own, check
    forget_coco_files()


def test_evaluator_of_another_file(evaluated):
    own, check = evaluated
    check(own)  # a copy
    images, boxes = own['images'], own['annotations']
    for change, said in (
        (
            dict(images=[{**row, 'file_name': f'train_{row["id"]}.jpg'} for row in images]),
            "'train_0.jpg', not '0.jpg'",
        ),
        (dict(images=[*images, {**images[0], 'id': 9}]), 'it has 4 images, the dataset 3'),
        (
            dict(categories=CATEGORIES[::-1]),
            "its categories in use are '2: blue', '5: red', not '5: red'",
        ),
        (dict(annotations=boxes[:-1]), 'it has 5 annotations, not 6'),
        (
            dict(annotations=[*boxes[:-1], {**boxes[-1], 'bbox': [1, 2, 3, 4]}]),
            'its annotations differ',
        ),
    ):
        for evaluator in (lambda m: m, lambda m: [dict(type='DumpDetResults'), m]):
            with pytest.raises(InputError, match=said):
                check({**own, **change}, evaluator)
    check({**own, 'categories': [*CATEGORIES, dict(id=9, name='unused')]})
    with pytest.raises(InputError, match=r'val_dataloader\.dataset\.indices: '):
        check(own, indices=2)
    with pytest.raises(InputError, match=r'^val_dataloader\.num_batch_per_epoch: a part'):
        check(own, loader=dict(num_batch_per_epoch=2))


def test_images_of_a_test_server_have_no_annotations(evaluated, checked):
    own, check = evaluated
    own['annotations'] = []
    with pytest.raises(InputError, match='has no annotations to evaluate against'):
        check(own)
    del own['annotations']
    check(own, lambda metric: {**metric, 'format_only': True, 'outfile_prefix': 'out'})
    with pytest.raises(InputError, match=r'has no annotations to evaluate against; set val_eval'):
        check(own)
    assert checked(own, test_mode=True).counts['images'] == 3
    assert 'indices' in checked(own, test_mode=True, indices=2).counts
    with pytest.raises(InputError, match="it has no list 'annotations'"):
        checked(own)


def test_panoptic_annotations_have_another_format(tmp_path, fresh_mmengine):
    init_default_scope('mmdet')
    (tmp_path / 'a.json').write_text('{"annotations": [{"image_id": 1, "segments_info": []}]}')
    dataset = dict(type='CocoPanopticDataset', data_root=str(tmp_path), ann_file='a.json')
    dataset['data_prefix'] = dict(img='', seg='')
    assert check_data(Config(dict(val_dataloader=dict(dataset=dataset))), ['val_dataloader']) == []


def test_files_behind_an_address_are_left_to_the_run(fresh_mmengine):
    init_default_scope('mmdet')
    address = dict(ann_file='s3://bucket/boxes.json')
    cfg = Config(
        dict(
            val_dataloader=dict(
                dataset=dict(type='CocoDataset', data_prefix=dict(img=''), **address)
            ),
            val_evaluator=dict(type='CocoMetric', **address),
        )
    )
    assert check_data(cfg, ['val_dataloader']) == []


def test_class_lists_of_a_run_have_one_order(monkeypatch):
    from mmdet.datasets import CocoDataset

    lines = []
    monkeypatch.setattr(numbering, 'print_log', lambda text, *_: lines.append(text))

    def check(*lists):
        settings = [dict(metainfo=dict(classes=classes)) for classes in lists]
        check_class_lists([DatasetConfig(f'd{n}', s, CocoDataset) for n, s in enumerate(settings)])

    check(('red', 'blue'), ('red', 'blue'), ('red',))
    assert not lines
    check(('red', 'blue'), ('rot', 'blue'))
    assert lines == ["d1: class 0 is 'rot', but 'red' in d0; labels have the same numbers."]
    with pytest.raises(InputError, match=r"^d2: class 0 is 'blue', but 'red' in d0; give metainfo"):
        check(('red', 'blue'), ('red', 'blue'), ('blue', 'red'))
