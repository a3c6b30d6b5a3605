"""Data that is missing, empty, malformed or does not fit: one line, exit code 2, nothing written."""

import json
import re

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from .conftest import VARIABLES, train


@pytest.mark.parametrize(
    ('task', 'missing'),
    [('cls', 'train'), ('det', 'instances_train2017.json'), ('seg', 'JPEGImages')],
)
def test_root(task, missing, tiny_config, refused, monkeypatch, tiny_ade):
    config = tiny_config(task)
    monkeypatch.setenv(VARIABLES[task], '/no/such/folder')
    line = refused(*train(config))
    assert "'/no/such/folder' is not a folder" in line
    assert VARIABLES[task] in line
    monkeypatch.setenv(VARIABLES[task], str(tiny_ade))
    line = refused(*train(config))
    assert missing in line
    assert str(tiny_ade) in line


def test_not_coco(own_data, tiny_config, refused):
    config, file = tiny_config('det'), own_data('det') / 'annotations/instances_train2017.json'
    table = json.loads(file.read_text())
    classes = table['categories']
    renamed = [*classes[:3], {**classes[3], 'name': 'speedboat'}, *classes[4:]]
    for content, said in (
        ('version: 1', 'is not JSON'),
        ([1, 2], "it has no list 'images'"),
        ({'shapes': [], 'imagePath': 'a.jpg'}, "it has no list 'images'"),
        ({**table, 'images': table['images'][:1]}, "is not an id in 'images'"),
        (
            {**table, 'categories': renamed},
            "does not have the class 'motorcycle'; it has 'speedboat'",
        ),
        ({**table, 'categories': classes[::-1]}, 'the order of the classes differs'),
        ({**table, 'images': [], 'annotations': []}, 'is empty'),
        ({**table, 'annotations': []}, 'is empty'),
    ):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        line = refused(*train(config))
        assert said in line
        assert 'instances_train2017.json' in line or said == 'is empty'


@pytest.mark.parametrize(
    ('task', 'option', 'count'),
    [
        ('cls', 'model.head.num_classes=10', 1000),
        ('det', 'model.bbox_head.num_classes=3', 80),
        ('seg', 'model.auxiliary_head.num_classes=19', 21),
    ],
)
def test_head_of_another_class_list(task, option, count, tiny_config, refused):
    line = refused(*train(tiny_config(task), option))
    assert option.split('=')[0] in line
    assert f'{count} classes' in line


def test_list_of_labels(own_data, tiny_config, refused):
    config, listed = tiny_config('cls'), own_data('cls') / 'meta/train.txt'
    lines = listed.read_text().splitlines()
    lines[2] = lines[2].rsplit(' ', 1)[0] + ' 1000'
    for content, said in (
        ('\n'.join(lines), 'line 3: label 1000'),
        ('image_without_label.jpg\n', 'expected FILE LABEL'),
        ('gone/image.jpg 3\n', 'image.jpg'),
        ('\n', 'is empty'),
    ):
        listed.write_text(content)
        assert said in refused(*train(config))


def test_split_list(own_data, tiny_config, refused):
    config, listed = tiny_config('seg'), own_data('seg') / 'ImageSets/Segmentation/train.txt'
    listed.write_text(listed.read_text() + '2007_999999\n')
    assert '2007_999999.jpg' in refused(*train(config))
    listed.write_text('\n')
    assert 'is empty' in refused(*train(config))
    listed.unlink()
    assert 'train.txt' in refused(*train(config))


def test_masks_of_0_and_255(own_data, tiny_config, refused, tool, tmp_path):
    """The line names the option that repairs them, and it does so for training and evaluation."""
    for file in (own_data('seg') / 'SegmentationClass').iterdir():
        mask = np.array(Image.open(file))
        Image.fromarray(np.where(mask == 0, mask, 255).astype(np.uint8)).save(file)
    config, options = tiny_config('seg'), []
    for option in ('train_dataloader.dataset.pipeline.1', 'val_dataloader.dataset.pipeline.2'):
        line = refused(*train(config, *options))
        assert f'{option}.label_map={{255: 1}}' in line
        options.append(f'{option}.label_map={{255: 1}}')
    assert tool(*train(config, *options), '--work-dir', tmp_path / 'run') == 0
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'images 6, masks read 6' in log
    assert re.search('pixels by class: .*aeroplane [1-9]', log)
    written = Config.fromfile(tmp_path / 'run' / 'seg.py')
    assert written.val_dataloader.dataset.pipeline[2].label_map == {255: 1}


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_batch_of_one_image(task, tiny_config, tool, capsys):
    """BN cannot normalise a map of one cell in a batch of one."""
    assert tool(*train(tiny_config(task), 'train_dataloader.batch_size=1')) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert lines[0].startswith('error: train_dataloader.batch_size: ')
    assert 'at least 2 images per process' in lines[0]
