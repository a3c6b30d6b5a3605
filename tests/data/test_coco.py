"""The reader of COCO files, what the hosts get from it, and the tool that writes a part of one."""

import json

import numpy as np
import pytest

from helpers import write_files
from mobileone_mm.data.coco import forget_coco_files, read_coco, use_coco_reader
from mobileone_mm.errors import InputError

BOX = dict(id=1, image_id=7, category_id=3, bbox=[1, 2, 3, 4], area=12)
IMAGE = dict(id=7, file_name='a.jpg', height=9, width=9)
TABLE = dict(images=[IMAGE], annotations=[BOX], categories=[dict(id=3, name='cat')])


@pytest.fixture
def write(tmp_path):
    def _write(table):
        return write_files(tmp_path, {'boxes.json': json.dumps(table)}) / 'boxes.json'

    yield _write
    forget_coco_files()


def test_only_the_keys_that_are_asked_for(write):
    table = dict(images=[dict(id=7)])
    assert read_coco(write(table), 'file', {'images': ('id',)}) == table
    assert read_coco(write(TABLE), 'file') == TABLE
    with pytest.raises(InputError, match=r"^file: '.*boxes.json': images\[0\] has no 'width'"):
        read_coco(write(table), 'file', {'images': ('id', 'width')})


@pytest.mark.parametrize(
    ('table', 'key', 'values'),
    [
        ('images', 'width', ['120', -1, 0, None, float('nan'), 10**400, True]),
        ('images', 'file_name', ['', ' ', 3, None]),
        (
            'annotations',
            'bbox',
            [None, 3, [1, 2, 3], [1, 2, 3, '4'], [1, 2, 3, None], [1, 2, 3, 1e999]],
        ),
        ('annotations', 'area', [None, '12', []]),
        ('annotations', 'iscrowd', ['0', 2, 0.5, []]),
        ('annotations', 'ignore', ['no']),
        ('annotations', 'image_id', [{}, [7], None, 7.0, '7']),
        ('categories', 'name', [None, '']),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_row(write, table, key, values):
    good, row = TABLE[table][0], len(TABLE[table])
    for value in values:
        rows = [good, {**good, key: value}]
        with pytest.raises(InputError, match=rf'{table}\[{row}\]\.{key}: got .*; expected'):
            read_coco(write({**TABLE, table: rows}), 'file')


@pytest.mark.parametrize('row', [None, [1], 'x'])
def test_a_row_that_is_no_dict(write, row):
    with pytest.raises(InputError, match=r'images\[1\]: got .*; expected a dict'):
        read_coco(write({**TABLE, 'images': [IMAGE, row]}), 'file')


def test_references(write):
    read_coco(write(TABLE), 'file').check_references()
    for changed, said in (
        (dict(annotations=[{**BOX, 'image_id': 8}]), r'annotations\[0\].image_id 8 is not an id'),
        (
            dict(annotations=[{**BOX, 'category_id': '3'}]),
            r"annotations\[0\].category_id '3' is not",
        ),
        (dict(annotations=[BOX, BOX]), r'annotations\[0\] and annotations\[1\] have the same id 1'),
        (dict(images=[IMAGE, IMAGE]), r'images\[0\] and images\[1\] have the same id 7'),
        (dict(categories=TABLE['categories'] * 2), r'categories\[0\] and categories\[1\]'),
    ):
        with pytest.raises(InputError, match=said):
            read_coco(write({**TABLE, **changed}), 'file').check_references()


def test_hosts_take_what_was_read(write, monkeypatch):
    """One reading, with a byte order mark, ids from 1 and no missing iscrowd."""
    from pycocotools.coco import COCO

    rows = [{**BOX, 'id': 0, 'iscrowd': None}, {**BOX, 'id': -2}, {**BOX, 'id': 5, 'iscrowd': 1.0}]
    file = write({**TABLE, 'annotations': rows})
    file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())
    use_coco_reader()
    use_coco_reader()  # a second call changes nothing
    assert read_coco(file, 'file').columns['annotations']['id'] == [0, -2, 5]
    with monkeypatch.context() as patch:
        patch.setattr(json, 'loads', None)
        found = COCO(str(file))
    assert [row['id'] for row in found.dataset['annotations']] == [1, 2, 3]
    assert [row['iscrowd'] for row in found.loadAnns([1, 2, 3])] == [0, 0, 1]
    file.write_text(json.dumps({**TABLE, 'images': [IMAGE, {**IMAGE, 'id': 8}]}))
    assert COCO(str(file)).getImgIds() == [7, 8]
    # What only the hosts read is not kept.
    assert COCO(str(file)).dataset is not COCO(str(file)).dataset
    other = write_files(file.parent, {'captions.json': '{"annotations": [{"id": 0}]}'})
    assert not COCO().dataset
    with pytest.raises(KeyError, match='image_id'):  # the host's own error for another format
        COCO(str(other / 'captions.json'))


def test_ap_does_not_depend_on_the_ids(write):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    use_coco_reader()
    rows = [{**BOX, 'id': row, 'bbox': [row, row, 4, 4], 'area': 16} for row in range(4)]
    found = []
    for shift in (1, 0, -2):
        truth = COCO(
            str(write({**TABLE, 'annotations': [{**r, 'id': r['id'] + shift} for r in rows]}))
        )
        boxes = [
            {k: r[k] for k in ('image_id', 'category_id', 'bbox')} | {'score': 1} for r in rows
        ]
        evaluation = COCOeval(truth, truth.loadRes(boxes), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        found.append(evaluation.stats)
        forget_coco_files()
    assert found[0][0] == pytest.approx(1)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_subset(write, tmp_path, tool, capsys):
    images = [{**IMAGE, 'id': number} for number in (5, 6, 7, 8)]
    boxes = [
        {**BOX, 'id': row, 'image_id': image, 'iscrowd': crowd}
        for row, (image, crowd) in enumerate([(8, 0), (6, 1), (7, 0), (7, 1), (5, 0)])
    ]
    file, out = write({**TABLE, 'images': images, 'annotations': boxes}), tmp_path / 'out.json'
    assert tool('coco_subset', file, out, '--num', 2) == 0
    table = json.loads(out.read_text())
    assert [image['id'] for image in table['images']] == [5, 7]
    assert [box['id'] for box in table['annotations']] == [2, 3, 4]
    assert table['categories'] == TABLE['categories']
    capsys.readouterr()
    for arguments, said in (
        ((file, out, '--num', 4), '--num: got 4; expected 1 to 3'),
        ((file, file), 'is the input'),
        ((tmp_path / 'none', out), 'no such file'),
    ):
        assert tool('coco_subset', *arguments) == 2
        assert said in capsys.readouterr().err
