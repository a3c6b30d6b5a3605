"""A checkpoint is used with the classes of its training, in their order, or the run is refused."""

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from helpers import write_files
from mobileone_mm.apis.dry_run import dry_run
from mobileone_mm.apis.switch_to_deploy import switch_to_deploy
from mobileone_mm.apis.test_robustness import evaluate_robustness
from mobileone_mm.data.checks.checkpoint_classes import (
    Labelled,
    check_run_checkpoint,
    compare_classes,
)
from mobileone_mm.data.datasets import datasets_of
from mobileone_mm.errors import InputError
from mobileone_mm.runs.prepare import TEACHERS, TEST, TRAIN, prepare
from mobileone_mm.weights.unwrap import read_weights

ABC, CBA = ('ant', 'bee', 'cat'), ('cat', 'bee', 'ant')
HEADS = {'cls': 'head', 'det': 'bbox_head', 'seg': 'decode_head'}


def content(classes, key='classes', head='head', **meta):
    meta = {'dataset_meta': {key: classes}, **meta}
    return {'state_dict': {f'{head}.fc.weight': torch.zeros(2)}, 'meta': meta}


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint that has classes and nearly no weights."""

    def write(classes, **more):
        torch.save(content(classes, **more), tmp_path / 'weights.pth')
        return str(tmp_path / 'weights.pth')

    return write


@pytest.fixture
def log(fresh_mmengine, capsys):
    """Return what was logged since the last call."""
    MMLogger.get_instance('classes', logger_name='classes')
    return lambda: ''.join(capsys.readouterr())


@pytest.mark.parametrize(
    ('stored', 'known', 'trained', 'tested'),
    [
        (ABC, [ABC], '', ''),
        (('Ant', 'BEE', 'c at'), [('ant', 'bee', 'c_at')], '', ''),
        (('+', '-'), [('-', '+')], 'order', 'order'),
        (ABC, [CBA], 'order', 'order'),
        (ABC, [('n01440764', 'n01443537', 'n01484850'), CBA], 'order', 'order'),
        (ABC, [CBA, ABC], '', ''),  # folders in other words than the class list
        (ABC, [ABC[:2]], '', ''),  # another head: it is not loaded, or the run is refused elsewhere
        (ABC, [], '', ''),
        ((), [ABC], '', ''),
        (ABC, [('n01440764', 'n01443537', 'n01484850')], '', ''),
        (('0', '1', '2'), [ABC], '', ''),
        (ABC, [('ant', 'bee', 'cow')], 'other', 'other'),
        (ABC, [('dog', 'elk', 'fly')], 'other', 'other'),
        # a class left out, another one added
        (ABC, [('bee', 'cat', 'dog')], 'other', 'moved'),
        # two words for one class: a common name at another place says nothing
        (('crane', 'kite', 'ox', 'elk'), [('heron', 'kite', 'ox', 'crane')], 'other', 'other'),
        (('crane', 'ox', 'crane'), [('ox', 'crane', 'crane')], 'order', 'order'),
    ],
)
@pytest.mark.parametrize('as_it_is', [False, True])
def test_two_lists(stored, known, trained, tested, as_it_is, log):
    weights, expected = read_weights(content(stored)), tested if as_it_is else trained
    sets = [Labelled('data', known, 'change its order')] * 2
    if expected in ('order', 'moved'):
        with pytest.raises(InputError, match=r'^checkpoint .* data .*; change its order; .* \('):
            compare_classes(weights, sets, as_it_is)
    else:
        compare_classes(weights, sets, as_it_is)
    assert log().count('has other classes than data') == (expected == 'other')


def test_the_line(save):
    weights = read_weights(save(('Red', 'blue', 'green')))
    with pytest.raises(InputError) as caught:
        compare_classes(weights, [Labelled('x', [('red', 'green', 'blue')], 'do this')], False)
    assert str(caught.value) == (
        f"{weights.name} has the classes of x in another order: class 1 is 'blue' in the checkpoint "
        "and 'green' in the data; do this; the checkpoint has ('Red', 'blue', 'green')"
    )


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': {'CLASSES': ABC}}, {'dataset_meta': {'Classes': list(ABC)}},
        {'CLASSES': ABC, 'dataset_meta': None}, {'CLASSES': CBA, 'dataset_meta': {'classes': ABC}},
    ],
)  # fmt: skip
def test_where_a_checkpoint_has_its_classes(meta):
    weights = read_weights(content((), **meta))
    compare_classes(weights, [Labelled('x', [ABC], '')], True)
    with pytest.raises(InputError, match='in another order'):
        compare_classes(weights, [Labelled('x', [CBA], '')], True)


@pytest.mark.parametrize('meta', [{}, {'dataset_meta': {'classes': 'ant'}}, {'CLASSES': [1, 2, 3]}])
def test_a_checkpoint_without_names(meta):
    compare_classes(read_weights(content((), **meta)), [Labelled('x', [CBA], '')], True)


@pytest.mark.parametrize('task', [*HEADS])
def test_every_door(task, tiny_config, save, tmp_path, fresh_mmengine):
    """A test, a training from the weights, a resumed one, a plan; for the datasets of each host."""
    config = tiny_config(task)
    work = dict(work_dir=str(tmp_path / 'run'))
    (dataset,) = datasets_of(prepare(config).cfg, 'test_dataloader')
    turned = (*dataset.classes[-2:], *dataset.classes[:-2])
    weights = save(turned, head=HEADS[task], iter=1, epoch=1)
    for options, purpose, flags in (
        ({}, TEST, dict(checkpoint=weights)),
        ({}, TRAIN, dict(resume=weights)),
        ({'load_from': weights}, TRAIN, {}),
        ({'model.init_cfg': dict(type='Pretrained', checkpoint=weights)}, TRAIN, {}),
    ):
        with pytest.raises(InputError, match='has the classes of .*_dataloader.* in another'):
            prepare(config, options, purpose, **flags, **work)
    with pytest.raises(InputError, match='in another order'):
        dry_run(config, cfg_options={'load_from': weights}, **work)
    # What uses no such head: a backbone alone, and initial weights that a test replaces.
    torch.save(content(turned, head='backbone'), tmp_path / 'backbone.pth')
    torch.save(content(dataset.classes), tmp_path / 'good.pth')
    prepare(config, {'load_from': str(tmp_path / 'backbone.pth')}, TRAIN, **work)
    init = {'model.init_cfg': dict(type='Pretrained', checkpoint=weights)}
    prepare(config, init, TEST, checkpoint=str(tmp_path / 'good.pth'), **work)


def test_more_doors(tiny_config, save, tmp_path, fresh_mmengine):
    """The metric beside a conversion, the evaluation of robustness, teachers."""
    config = tiny_config('cls')
    (dataset,) = datasets_of(prepare(config).cfg, 'test_dataloader')
    weights = save(dataset.classes[::-1])
    work = str(tmp_path / 'run')
    with pytest.raises(InputError, match='in another order'):
        switch_to_deploy(config, weights, tmp_path / 'out.pth', data=True)
    with pytest.raises(InputError, match='in another order'):
        evaluate_robustness(config, weights, sets=['clean'], work_dir=work)
    student = f"model.update(teachers=[dict(timm='resnet18', checkpoint='{weights}')])\n"
    config = tiny_config('cls', student, 'student')
    for purpose in (TRAIN, TEACHERS):
        with pytest.raises(InputError, match='in another order'):
            prepare(config, {}, purpose, work_dir=work)
    good = tmp_path / 'good.pth'
    torch.save(content(dataset.classes), good)
    prepare(
        config, {}, TEST, checkpoint=str(good), work_dir=work
    )  # the teachers have no part in it


def advised(cfg, weights):
    cfg = Config(dict(cfg, load_from=weights))
    with pytest.raises(InputError) as caught:
        check_run_checkpoint(cfg, ['test_dataloader'], tests=True)
    return str(caught.value)


def loader(**dataset):
    return dict(test_dataloader=dict(dataset=dataset))


@pytest.mark.parametrize(
    ('scope', 'settings', 'said'),
    [
        ('mmdet', dict(type='CocoDataset', ann_file='a.json', metainfo=dict(classes=CBA)),
         "put the rows of 'categories' in '{root}/a.json' and metainfo.classes in its order"),
        ('mmdet', dict(type='VOCDataset', metainfo=dict(classes=CBA)), 'set metainfo.classes to its'),
        ('mmseg', dict(type='BaseSegDataset', metainfo=dict(classes=CBA)),
         'set metainfo.classes to its order, and renumber the masks if they have the other order'),
        ('mmpretrain', dict(type='CustomDataset', ann_file='a.txt', metainfo=dict(classes=CBA)),
         "write its numbers into '{root}/a.txt', and set metainfo.classes to its order"),
    ],
)  # fmt: skip
def test_advice(scope, settings, said, save, tmp_path, fresh_mmengine):
    init_default_scope(scope)
    settings = dict(settings, data_root=str(tmp_path))
    weights = save(ABC)
    line = advised(loader(**settings), weights)
    assert said.format(root=tmp_path) in line
    settings['metainfo'] = dict(classes=ABC)
    cfg = Config(dict(loader(**settings), load_from=weights))
    check_run_checkpoint(cfg, ['test_dataloader'], tests=True)


def test_class_folders(save, tmp_path, fresh_mmengine):
    """Their names are the classes; a list of the images gives them other numbers."""
    init_default_scope('mmpretrain')
    write_files(tmp_path / 'val', {f'{name}/a.jpg': '' for name in ABC})
    settings = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='val')
    weights = save(CBA)
    line = advised(loader(**settings), weights)
    assert (
        "class 0 is 'cat' in the checkpoint and 'ant' in the data; write its numbers into" in line
    )
    settings |= dict(ann_file='a.txt', metainfo=dict(classes=CBA))
    cfg = Config(dict(loader(**settings), load_from=weights))
    check_run_checkpoint(cfg, ['test_dataloader'], tests=True)
