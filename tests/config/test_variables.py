"""Overrides of variables that the file has used already are refused; keys of the user are not."""

import pytest

from mobileone_mm.config import variables
from mobileone_mm.config.read import load_config
from mobileone_mm.errors import InputError, few

CONFIG = """
data_root, dataset_type, classes, crop_size = 'data/own', 'CocoDataset', ('a', 'b'), (64, 96)
batch_size, base_lr, max_epochs, own_number, own_name, flag = 4, 0.25, 300, 2, 'data/o', True
metainfo = dict(classes=classes)
norm_cfg = dict(type='BN', eps=1e-3)
train_pipeline = [dict(type='Resize', scale=crop_size), dict(type='Pack')]
test_pipeline = [dict(type='Pack')]
model = dict(type='X', norm_cfg=norm_cfg, layers=2, more=dict(norm_cfg=norm_cfg), big=True, size=64)
train_dataloader = dict(batch_size=batch_size, num_workers=4, dataset=dict(
    type=dataset_type, data_root=data_root, ann_file=f'{data_root}/a.json', metainfo=metainfo,
    pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=base_lr))
train_cfg = dict(max_epochs=max_epochs)
"""
DATASET = 'train_dataloader.dataset'


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(variables, 'print_log', lambda text, *_: lines.append(text))
    return lines


@pytest.fixture
def load(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(CONFIG)
    return lambda options: load_config(path, options)


@pytest.mark.parametrize(
    ('name', 'places'),
    [
        ('data_root', [f'{DATASET}.data_root', f'{DATASET}.ann_file']),
        ('dataset_type', [f'{DATASET}.type']),
        ('classes', [f'{DATASET}.metainfo.classes']),
        ('crop_size', [f'{DATASET}.pipeline.0.scale']),
        ('batch_size', ['train_dataloader.batch_size']),
        ('base_lr', ['optim_wrapper.optimizer.lr']),
        ('max_epochs', ['train_cfg.max_epochs']),
        ('metainfo.classes', [f'{DATASET}.metainfo.classes']),
        ('norm_cfg', ['model.norm_cfg', 'model.more.norm_cfg']),
        ('norm_cfg.eps', ['model.norm_cfg.eps', 'model.more.norm_cfg.eps']),
        ('train_pipeline.0.scale', [f'{DATASET}.pipeline.0.scale']),
    ],
)
def test_variables(name, places, load):
    with pytest.raises(InputError) as caught:
        load({name: 'new'})
    assert f'--cfg-options {name}: changes nothing, ' in str(caught.value)
    assert f'is in {few(places)}; set these' in str(caught.value)
    load({name: 'new', **dict.fromkeys(places, 1)})  # the places, too


@pytest.mark.parametrize('name', ['own_name', 'flag', 'test_pipeline.0.type'])
def test_keys_of_the_user(name, load, said):
    """The tools look them up, or their values stand nowhere else."""
    load({name: 'new'})
    assert said == []


def test_a_small_number_may_stand_elsewhere_by_chance(load, said):
    load({'own_number': 4})
    load({'own_number': 4, 'model.layers': 4})
    assert said == [
        "--cfg-options own_number: nothing reads 'own_number' by this name; if it is a variable of the "
        "file, the override changes nothing: its value 2 stays in 'model.layers'"
    ]


@pytest.mark.parametrize('name', ['data_preprocessor.mean', 'test_pipeline.0.type'])
def test_keys_that_another_one_replaces(name, tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("""
model = dict(type='X', data_preprocessor=dict(mean=1))
test_dataloader = dict(dataset=dict(pipeline=[dict(type='Pack')]))
""")
    with pytest.raises(InputError, match=f"{name}: nothing reads '{name.split('.')[0]}' beside "):
        load_config(path, {name: 2})


def test_many_places(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("root = '/d'\nmodel = dict(type='X', files=[root, root, root, root + '/a'])\n")
    with pytest.raises(InputError, match=r'.model\.files\.2., \.\.\. \(4 in total\); set'):
        load_config(path, {'root': '/e'})
