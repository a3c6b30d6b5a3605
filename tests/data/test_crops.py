"""Objects of a COCO-format dataset as images in class folders."""

import errno
import json
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image

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
    reader = Mock(wraps=coco_crops.read_image)
    monkeypatch.setattr(coco_crops, 'read_image', reader)
    out = tmp_path / 'out'
    assert cut_objects(*coco, out, margin=0.0).counts == {'cat': 1, 'bus/coach': 1}
    assert reader.call_count == 1
    cat, bus = (cv2.imread(str(out / name)) for name in ('cat/a_1.jpg', 'bus_coach/a_2.jpg'))
    assert (cat.shape, bus.shape) == ((60, 60, 3), (60, 80, 3))
    assert np.abs(cat.reshape(-1, 3).mean(0) - (0, 0, 255)).max() < 4
    assert np.abs(bus.reshape(-1, 3).mean(0) - (0, 255, 0)).max() < 4


def test_an_image_is_turned_as_in_a_training(coco, tmp_path):
    """The boxes are those of the turned image: annotators see it in a viewer."""
    stored = Image.open(coco[1] / 'a.png').transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees to the right
    stored.save(coco[1] / 'a.jpg', exif=exif, quality=95)
    coco[0].write_text(coco[0].read_text().replace('a.png', 'a.jpg'))
    cut_objects(*coco, tmp_path / 'out', margin=0.0)
    cat = cv2.imread(str(tmp_path / 'out/cat/a_1.jpg'))
    assert np.abs(cat.reshape(-1, 3).mean(0) - (0, 0, 255)).max() < 6


@pytest.fixture
def change(coco):
    """Change the table of the annotation file in a function."""

    def apply(function):
        table = json.loads(coco[0].read_text())
        function(table)
        coco[0].write_text(json.dumps(table))

    return apply


def test_what_cannot_be_cut_is_left_out(coco, tmp_path, change):
    """An image that is not there, and boxes beyond the image or wider than a JPEG can be."""
    cv2.imwrite(str(coco[1] / 'wide.png'), np.zeros((50, 65501, 3), np.uint8))

    def add(table):
        table['images'] += [dict(id=8, file_name='gone.png'), dict(id=9, file_name='wide.png')]
        for image, box in (
            (8, [0, 0, 90, 90]), (9, [0, 0, 65501, 50]), (7, [500, 0, 60, 60]),
            (7, [0, -90, 60, 60]),
        ):  # fmt: skip
            row = dict(id=len(table['annotations']) + 1, image_id=image, category_id=3, bbox=box)
            table['annotations'].append(row)

    change(add)
    crops = cut_objects(*coco, tmp_path / 'out')
    assert crops.counts == {'cat': 1, 'bus/coach': 1}
    (gone,) = crops.unreadable
    assert "gone.png' cannot be read" in gone
    uncut = sorted(crops.uncut)
    assert ['65501 x 50 px' in uncut[0], *('has no pixel' in row for row in uncut[1:])] == [
        True
    ] * 3
    assert uncut[0].startswith("annotation 6 of 'wide.png': ")
    assert sum(path.is_file() for path in (tmp_path / 'out').rglob('*')) == 2
    said = str(crops)
    assert "the folder of class 'bus/coach' is 'bus_coach'" in said
    assert '1 images are left out: ' in said
    assert '3 boxes are left out: ' in said


def test_names_of_classes_and_images_stay_inside(coco, tmp_path, change):
    """No class and no crop writes over another one, or outside the folder."""
    classes = ['..', '../..', '/abs', '.', '?', 'a\0b', 'Cat', 'cat', 'x' * 300, 'x' * 299]
    files = ['sub/1.png', 'other/1.png', '../images/1.png', 'y' * 250 + '.png']

    def rename(table):
        rows = table['annotations'] = []
        table['categories'] = [dict(id=n, name=name) for n, name in enumerate(classes)]
        table['images'] = [dict(id=n, file_name=name) for n, name in enumerate(files)]
        for image, name in enumerate(files):
            path = coco[1] / name
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), np.zeros((100, 100, 3), np.uint8))
            rows += [
                dict(id=f'../{image}.{n}', image_id=image, category_id=n, bbox=[0, 0, 90, 90])
                for n in range(len(classes))
            ]

    change(rename)
    before = {path for path in tmp_path.rglob('*') if path.is_file()}
    crops = cut_objects(*coco, tmp_path / 'out')
    assert crops.counts == dict.fromkeys(classes, len(files))
    new = {path for path in tmp_path.rglob('*') if path.is_file()} - before
    assert len(new) == len(classes) * len(files)
    for path in new:
        assert len(path.relative_to(tmp_path / 'out').parts) == 2
    folders = [path.name for path in (tmp_path / 'out').iterdir()]
    assert len({name.casefold() for name in folders}) == len(folders) == len(classes)


def test_a_failure_leaves_nothing(coco, tmp_path, monkeypatch):
    """No image can be read, or the disk is full."""
    for error, said in (
        (InputError('image 1 is empty'), 'no object could be cut; image 1 is empty'),
        (OSError(errno.ENOSPC, 'full'), 'out: cannot write .*: the disk is full'),
    ):
        with monkeypatch.context() as patch:
            name = 'read_image' if isinstance(error, InputError) else 'encode_image'
            patch.setattr(coco_crops, name, Mock(side_effect=error))
            with pytest.raises(InputError, match=said):
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
        (dict(min_size=100), "no box of '.*' that is no crowd is 100 px"),
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


def test_corners_are_refused(coco, tmp_path, change):
    """The images have 100 x 100 pixels."""

    def to_corners(table):
        for number, row in enumerate(table['annotations']):
            row['bbox'] = [40, 50 - number, 95, 99]

    change(to_corners)
    with pytest.raises(InputError, match='bbox is x1, y1, x2, y2; expected x, y, width, height'):
        cut_objects(*coco, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
