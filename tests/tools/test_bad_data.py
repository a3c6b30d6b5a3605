"""Data that is missing, empty, malformed or does not fit: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil

import pytest


def train(config, *options):
    return ('train', config, *(('--cfg-options', *options) if options else ()))


def copy_coco(roots, tmp_path, monkeypatch, change):
    """The tiny COCO set with its training annotations changed."""
    root = tmp_path / 'coco'
    shutil.copytree(roots['COCO_ROOT'], root)
    file = root / 'annotations' / 'instances_train2017.json'
    table = change(json.loads(file.read_text()))
    file.write_text(table if isinstance(table, str) else json.dumps(table))
    monkeypatch.setenv('COCO_ROOT', str(root))
    return root


# -- data roots ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('task', 'variable'), [('cls', 'IMAGENET_ROOT'), ('det', 'COCO_ROOT'), ('seg', 'VOC_ROOT')]
)
def test_missing_root(task, variable, tiny_config, refused, monkeypatch, tmp_path):
    config = tiny_config(task)
    monkeypatch.setenv(variable, '/no/such/folder')
    line = refused(*train(config))
    assert "'/no/such/folder' is not a folder" in line
    assert variable in line
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    ('task', 'variable', 'missing'),
    [
        ('cls', 'IMAGENET_ROOT', 'train'),
        ('det', 'COCO_ROOT', 'instances_train2017.json'),
        ('seg', 'VOC_ROOT', 'JPEGImages'),
    ],
)
def test_wrong_root(task, variable, missing, tiny_config, refused, monkeypatch, tiny_ade):
    config = tiny_config(task)
    monkeypatch.setenv(variable, str(tiny_ade))
    line = refused(*train(config))
    assert missing in line
    assert str(tiny_ade) in line


# -- annotations -----------------------------------------------------------------------------------


def without(table, key):
    table['annotations'][2].pop(key)
    return table


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda table: 'version: 1', 'is not JSON'),
        (lambda table: '{"images": [', 'is not JSON'),
        (lambda table: [1, 2], 'holds a list'),
        (lambda table: {'shapes': [], 'imagePath': 'a.jpg'}, "it has no list 'images'"),
        (lambda table: without(table, 'bbox'), "annotations[2] has no 'bbox'"),
        (lambda table: {**table, 'categories': table['categories'][:5]}, 'is not in categories'),
        (lambda table: {**table, 'images': table['images'][:1]}, 'is not in images'),
    ],
)
def test_not_coco(change, said, tiny_config, roots, tmp_path, monkeypatch, refused):
    config = tiny_config('det')
    copy_coco(roots, tmp_path, monkeypatch, change)
    line = refused(*train(config))
    assert said in line
    assert 'instances_train2017.json' in line


def renamed(table):
    table['categories'][3]['name'] = 'speedboat'
    return table


def reordered(table):
    table['categories'][:2] = reversed(table['categories'][:2])
    return table


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (renamed, "does not have the classes 'motorcycle'"),
        (reordered, 'the order of the classes differs'),
    ],
)
def test_class_list(change, said, tiny_config, roots, tmp_path, monkeypatch, refused):
    config = tiny_config('det')
    copy_coco(roots, tmp_path, monkeypatch, change)
    assert said in refused(*train(config))


OTHER_CLASSES = """
classes = dict(classes=('bird', 'ufo'))
model['bbox_head'].update(num_classes=2)
train_dataloader['dataset'].update(dataset=dict(metainfo=classes))
val_dataloader.update(dataset=dict(metainfo=classes))
"""


def test_class_list_of_the_config(tiny_config, refused):
    line = refused(*train(tiny_config('det', OTHER_CLASSES)))
    assert "does not have the classes 'ufo'" in line


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


def test_label_beyond_the_classes(tiny_config, roots, tmp_path, monkeypatch, refused):
    root = tmp_path / 'imagenet'
    shutil.copytree(roots['IMAGENET_ROOT'], root)
    listed = root / 'meta' / 'train.txt'
    lines = listed.read_text().splitlines()
    lines[2] = lines[2].rsplit(' ', 1)[0] + ' 1000'
    listed.write_text('\n'.join(lines))
    monkeypatch.setenv('IMAGENET_ROOT', str(root))
    line = refused(*train(tiny_config('cls')))
    assert 'line 3: label 1000' in line
    listed.write_text('image_without_label.jpg\n')
    assert 'expected FILE LABEL' in refused(*train(tiny_config('cls')))
    listed.write_text('gone/image.jpg 3\n')
    assert 'image.jpg' in refused(*train(tiny_config('cls')))


def test_split_list(tiny_config, roots, tmp_path, monkeypatch, refused):
    root = tmp_path / 'voc'
    shutil.copytree(roots['VOC_ROOT'], root)
    monkeypatch.setenv('VOC_ROOT', str(root))
    listed = root / 'ImageSets' / 'Segmentation' / 'train.txt'
    listed.write_text(listed.read_text() + '2007_999999\n')
    assert '2007_999999.jpg' in refused(*train(tiny_config('seg')))
    listed.unlink()
    assert 'train.txt' in refused(*train(tiny_config('seg')))


# -- empty datasets -------------------------------------------------------------------------------


def test_empty_coco(tiny_config, roots, tmp_path, monkeypatch, refused):
    config = tiny_config('det')
    root = copy_coco(roots, tmp_path, monkeypatch, lambda t: {**t, 'images': [], 'annotations': []})
    assert 'is empty' in refused(*train(config))
    shutil.rmtree(root)
    copy_coco(roots, tmp_path, monkeypatch, lambda t: {**t, 'annotations': []})
    assert 'is empty' in refused(*train(config))


@pytest.mark.parametrize(
    ('task', 'variable', 'listed'),
    [
        ('cls', 'IMAGENET_ROOT', 'meta/train.txt'),
        ('seg', 'VOC_ROOT', 'ImageSets/Segmentation/train.txt'),
    ],
)
def test_empty_list(task, variable, listed, tiny_config, roots, tmp_path, monkeypatch, refused):
    root = tmp_path / 'data'
    shutil.copytree(roots[variable], root)
    (root / listed).write_text('\n')
    monkeypatch.setenv(variable, str(root))
    assert 'is empty' in refused(*train(tiny_config(task)))


def test_fewer_images_than_a_batch(tiny_config, refused):
    """With drop_last mmengine would train nothing, and say that all went well."""
    line = refused(*train(tiny_config('seg'), 'train_dataloader.batch_size=7'))
    assert '6 images' in line


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_batch_of_one_image(task, tiny_config, tool, capsys):
    """BN cannot normalise a map of one cell in a batch of one."""
    assert tool(*train(tiny_config(task), 'train_dataloader.batch_size=1')) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert lines[0].startswith('error: train_dataloader.batch_size: ')
    assert 'at least 2 images per process' in lines[0]
