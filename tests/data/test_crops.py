"""Objects of a COCO-format dataset as images in class folders."""

import json
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from helpers import write_files
from mobileone_mm.data.convert import coco_crops
from mobileone_mm.data.convert.coco_crops import cut_objects
from mobileone_mm.errors import InputError


@pytest.fixture
def coco(tmp_path):
    """One image of 200 x 100 whose objects have one colour each."""
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:80, 10:70] = (0, 0, 255)
    image[30:90, 100:180] = (0, 255, 0)
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.png'), image)
    boxes = [
        dict(id=1, image_id=7, category_id=3, bbox=[10, 20, 60, 60]),
        dict(id=2, image_id=7, category_id=5, bbox=[100, 30, 80, 60]),
        dict(id=3, image_id=7, category_id=5, bbox=[0, 0, 9, 60]),
        dict(id=4, image_id=7, category_id=5, bbox=[0, 0, 90, 90], iscrowd=1),
    ]
    kinds = [
        dict(id=3, name='cat', supercategory='animal'),
        dict(id=5, name='bus/coach', supercategory='vehicle'),
    ]
    table = dict(images=[dict(id=7, file_name='a.png')], categories=kinds, annotations=boxes)
    write_files(tmp_path, {'boxes.json': json.dumps(table)})
    return tmp_path / 'boxes.json', tmp_path / 'images'


def test_crops_show_their_object(coco, tmp_path, monkeypatch):
    """An image is decoded once for all of its objects."""
    opened = Mock(wraps=coco_crops.Image.open)
    monkeypatch.setattr(coco_crops.Image, 'open', opened)
    out = tmp_path / 'out'
    assert cut_objects(*coco, out, margin=0.0) == {'cat': 1, 'bus/coach': 1}
    assert opened.call_count == 1
    cat, bus = (cv2.imread(str(out / name)) for name in ('cat/a_1.jpg', 'bus_coach/a_2.jpg'))
    assert (cat.shape, bus.shape) == ((60, 60, 3), (60, 80, 3))
    assert np.abs(cat.reshape(-1, 3).mean(0) - (0, 0, 255)).max() < 4
    assert np.abs(bus.reshape(-1, 3).mean(0) - (0, 255, 0)).max() < 4


def test_a_failure_leaves_nothing(coco, tmp_path):
    table = json.loads(coco[0].read_text())
    table['images'].append(dict(id=8, file_name='gone.png'))
    table['annotations'].append(dict(id=9, image_id=8, category_id=3, bbox=[0, 0, 90, 90]))
    coco[0].write_text(json.dumps(table))
    with pytest.raises(InputError, match=r'gone\.png'):
        cut_objects(*coco, tmp_path / 'out')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['boxes.json', 'images']


def test_margin_ends_at_the_border(coco, tmp_path):
    cut_objects(*coco, tmp_path / 'out', by='supercategory', margin=0.25, classes=('animal',))
    (path,) = (tmp_path / 'out').rglob('*.jpg')
    assert path.parent.name == 'animal'
    assert cv2.imread(str(path)).shape == (90, 85, 3)  # 10 - 15 < 0, so 10 are there


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(by='colour'), "--by: got 'colour'; expected category or supercategory"),
        (dict(min_size=0), '--min-size: got 0'),
        (dict(margin=-1), '--margin: got -1'),
        (dict(classes=('dog',)), 'no category is named dog; known: bus/coach, cat'),
        (dict(min_size=100), "no box of '.*' is 100 px"),
    ],
)
def test_wrong_arguments(arguments, message, coco, tmp_path):
    with pytest.raises(InputError, match=message):
        cut_objects(*coco, tmp_path / 'out', **arguments)
    assert not (tmp_path / 'out').exists()


def test_tool(coco, tmp_path, tool, capsys):
    annotations, images = coco
    out = tmp_path / 'out'
    for *arguments, said in (
        (annotations, images, images, 'is not empty'),
        (annotations, tmp_path, out, "a.png' cannot be read"),
    ):
        assert tool('coco_crops', *arguments) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()
    assert tool('coco_crops', *coco, out, '--classes', 'cat') == 0
    assert '1 images' in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ['cat']
