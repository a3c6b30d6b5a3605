"""Data that is missing, empty, malformed or does not fit: one line, exit code 2, nothing written."""

import json
import shutil

import pytest

VARIABLES = {'cls': 'IMAGENET_ROOT', 'det': 'COCO_ROOT', 'seg': 'VOC_ROOT'}
LISTS = {
    'cls': 'meta/train.txt',
    'det': 'annotations/instances_train2017.json',
    'seg': 'ImageSets/Segmentation/train.txt',
}


def train(config, *options):
    return ('train', config, *(('--cfg-options', *options) if options else ()))


@pytest.fixture
def own(roots, tmp_path, monkeypatch):
    """Copy the tiny dataset of a task; return its list of training images, which a test changes."""

    def copy(task):
        root = shutil.copytree(roots[VARIABLES[task]], tmp_path / 'data')
        monkeypatch.setenv(VARIABLES[task], str(root))
        return root / LISTS[task]

    return copy


@pytest.mark.parametrize(
    ('task', 'missing'),
    [('cls', 'train'), ('det', 'instances_train2017.json'), ('seg', 'JPEGImages')],
)
def test_root(task, missing, tiny_config, refused, monkeypatch, tmp_path, tiny_ade):
    config = tiny_config(task)
    monkeypatch.setenv(VARIABLES[task], '/no/such/folder')
    line = refused(*train(config))
    assert "'/no/such/folder' is not a folder" in line
    assert VARIABLES[task] in line
    assert not (tmp_path / 'work_dirs').exists()
    monkeypatch.setenv(VARIABLES[task], str(tiny_ade))
    line = refused(*train(config))
    assert missing in line
    assert str(tiny_ade) in line


def without_box(table):
    table['annotations'][2].pop('bbox')
    return table


def renamed(table):
    table['categories'][3]['name'] = 'speedboat'
    return table


def reordered(table):
    table['categories'][:2] = reversed(table['categories'][:2])
    return table


def test_not_coco(own, tiny_config, refused):
    config, file = tiny_config('det'), own('det')
    content = file.read_text()
    for change, said in (
        (lambda table: 'version: 1', 'is not JSON'),
        (lambda table: [1, 2], "it has no list 'images'"),
        (lambda table: {'shapes': [], 'imagePath': 'a.jpg'}, "it has no list 'images'"),
        (without_box, "annotations[2] has no 'bbox'"),
        (lambda table: {**table, 'categories': table['categories'][:5]}, 'is not in categories'),
        (lambda table: {**table, 'images': table['images'][:1]}, 'is not in images'),
        (renamed, "does not have the classes 'motorcycle'"),
        (reordered, 'the order of the classes differs'),
        (lambda table: {**table, 'images': [], 'annotations': []}, 'is empty'),
        (lambda table: {**table, 'annotations': []}, 'is empty'),
    ):
        table = change(json.loads(content))
        file.write_text(table if isinstance(table, str) else json.dumps(table))
        line = refused(*train(config))
        assert said in line
        assert 'instances_train2017.json' in line or said == 'is empty'


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


def test_list_of_labels(own, tiny_config, refused):
    config, listed = tiny_config('cls'), own('cls')
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


def test_split_list(own, tiny_config, refused):
    config, listed = tiny_config('seg'), own('seg')
    listed.write_text(listed.read_text() + '2007_999999\n')
    assert '2007_999999.jpg' in refused(*train(config))
    listed.write_text('\n')
    assert 'is empty' in refused(*train(config))
    listed.unlink()
    assert 'train.txt' in refused(*train(config))


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
