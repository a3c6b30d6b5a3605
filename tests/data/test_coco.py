"""The reader of COCO files, and the tool that writes a part of one."""

import json

import pytest

from helpers import write_files
from mobileone_mm.data.coco import check_references, read_coco
from mobileone_mm.errors import InputError

BOX = dict(id=1, image_id=7, category_id=3, bbox=[1, 2, 3, 4], area=12)
IMAGE = dict(id=7, file_name='a.jpg', height=9, width=9)
TABLE = dict(images=[IMAGE], annotations=[BOX], categories=[dict(id=3, name='cat')])


@pytest.fixture
def write(tmp_path):
    def _write(table):
        return write_files(tmp_path, {'boxes.json': json.dumps(table)}) / 'boxes.json'

    return _write


def test_only_the_keys_that_are_asked_for(write):
    table = dict(images=[dict(id=7)])
    assert read_coco(write(table), 'file', {'images': ('id',)}) == table
    assert read_coco(write(TABLE), 'file') == TABLE
    with pytest.raises(InputError, match=r"^file: '.*boxes.json': images\[0\] has no 'width'"):
        read_coco(write(table), 'file', {'images': ('id', 'width')})


def test_bad_value(write):
    for key, *values in (
        ('bbox', None, 3, [1, 2, 3], [1, 2, 3, '4']),
        ('id', []),
        ('image_id', {}),
    ):
        for value in values:
            with pytest.raises(InputError, match=rf'annotations\[0\]\.{key}: got .*; expected'):
                read_coco(write({**TABLE, 'annotations': [{**BOX, key: value}]}), 'file')


def test_references():
    check_references(TABLE, 'file')
    for rows, said in (
        ([{**BOX, 'image_id': 8}], r'annotations\[0\].image_id 8 is not in images'),
        ([{**BOX, 'category_id': 8}], r'annotations\[0\].category_id 8 is not in categories'),
        ([BOX, BOX], 'annotation ids are not unique'),
    ):
        with pytest.raises(InputError, match=f'^file: {said}'):
            check_references({**TABLE, 'annotations': rows}, 'file')


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
