"""Configs and overrides: what is read, what is merged, and what is refused in one line."""

import sys

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from helpers import cfg_options
from mobileone_mm.config.read import load_config
from mobileone_mm.errors import InputError

CONFIG = """
model = dict(type='X', backbone=dict(arch='s0', depths=[1, 2]), neck=None, file='x',
             steps=[dict(type='X', x=1), dict(type='Y', y=2)])
"""


def at(node, path):
    for key in path.split('.'):
        node = node[int(key)] if key.isdigit() else node[key]
    return node


@pytest.fixture
def load(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(CONFIG)
    return lambda options=None, **given: load_config(path, options or given)


def test_options_that_are_allowed(load):
    for name in (
        'model.backbone.arch', 'model.backbone.frozen_stages', 'model.steps.1.y',
        'model.backbone.init_cfg.checkpoint', 'log_level',
    ):  # fmt: skip
        assert at(load(**{name: 1}), name) == 1


def test_options_that_are_not(load):
    for name in (
        'model.backbon.arch', 'model.backbone.depths.2', 'model.backbone.arch.x', 'my_variable',
        'modl.x', 'model.steps.7._delete_',
    ):  # fmt: skip
        with pytest.raises(InputError, match='--cfg-options'):
            load(**{name: 1})


def test_an_argument_with_a_near_name(tmp_path):
    """``class_weight`` differs from ``loss_weight`` by few letters, and is an argument of the class."""
    pytest.importorskip('mmseg')
    path = tmp_path / 'seg.py'
    path.write_text("""
default_scope = 'mmseg'
model = dict(type='EncoderDecoder', decode_head=dict(type='FCNHead', loss_decode=dict(
    type='CrossEntropyLoss', use_sigmoid=False, loss_weights=1.0, class_weigh=None)))
""")
    loss = 'model.decode_head.loss_decode'
    cfg = load_config(path, {f'{loss}.class_weight': [1.0, 2.0], f'{loss}.loss_weight': 2.0})
    assert cfg.model.decode_head.loss_decode.class_weight == [1.0, 2.0]
    with pytest.raises(InputError, match="has no 'use_sigmoi'; did you mean 'use_sigmoid'"):
        load_config(path, {f'{loss}.use_sigmoi': True})
    # The class that counts is that of an override, too.
    with pytest.raises(InputError, match="did you mean 'class_weigh'"):
        load_config(path, {f'{loss}.class_weight': [1.0], f'{loss}.type': 'DiceLoss'})


def test_item_of_a_list_is_replaced(load):
    options = {'model.steps.0._delete_': True, 'model.steps.0.type': 'W', 'model.steps.1.y': 5}
    before = dict(options)
    assert load(options).model.steps == [dict(type='W'), dict(type='Y', y=5)]
    assert options == before
    # If mmengine learns it, this fails, and our merging can go.
    theirs = Config.fromstring(CONFIG, '.py')
    theirs.merge_from_dict({'model.steps.0._delete_': True, 'model.steps.0.type': 'W'})
    assert theirs.model.steps[0]['x'] == 1


def test_bases_of_the_hosts_by_name(tmp_path):
    """``mmseg::`` too, which mmengine looks up under another name than OneDL's."""
    pytest.importorskip('mmseg')
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'\n")
    assert load_config(path).model.decode_head.type == 'FCNHead'


def test_custom_imports_beside_the_config(tmp_path, monkeypatch):
    (tmp_path / 'my_hooks.py').write_text('')
    path = tmp_path / 'own.py'
    path.write_text(CONFIG + "custom_imports = dict(imports=['my_hooks'])\n")
    with pytest.raises(InputError, match="does not find the module 'my_hooks'.*PYTHONPATH") as told:
        load_config(path)
    assert str(tmp_path) in str(told.value).partition('my_hooks')[2]
    monkeypatch.syspath_prepend(tmp_path)
    assert load_config(path).model.type == 'X'
    monkeypatch.delitem(sys.modules, 'my_hooks')
    path.write_text(CONFIG + "custom_imports = dict(imports=['elsewhere.hooks'])\n")
    with pytest.raises(InputError, match="'elsewhere'; add the folder that has it"):
        load_config(path)


def test_an_environment_variable_is_named_once(tmp_path, monkeypatch):
    """mmengine names it for each place; the records are seen behind the filter of the logger."""
    monkeypatch.setenv('MY_ROOT', '/data')
    (tmp_path / 'own.py').write_text(CONFIG + "a, b = '{{$MY_ROOT:x}}', '{{$MY_ROOT:x}}'\n")
    said = []
    monkeypatch.setattr(MMLogger, 'callHandlers', lambda _, line: said.append(line.getMessage()))
    assert load_config(tmp_path / 'own.py').b == '/data'
    assert [line for line in said if 'MY_ROOT' in line] == said[:1] != []


@pytest.mark.parametrize(
    ('word', 'value'),
    [
        ('load_from=/data/a,b.pth', '/data/a,b.pth'),
        ('work_dir=runs/1,2', 'runs/1,2'),
        ('model.file=/data/a,b.pth', '/data/a,b.pth'),
        ('model.neck=/data/a,b', ['/data/a', 'b']),
        ('model.file=a,b', ['a', 'b']),
        ('model.file=[/a,/b]', ['/a', '/b']),
        ('model.backbone.depths=/a,/b', ['/a', '/b']),
    ],
)
def test_a_path_with_a_comma_is_one_string(word, value, load):
    """Where the config has a string; elsewhere commas make a list, as in mmengine."""
    node = at(load(cfg_options(word)), word.partition('=')[0])
    assert node == value
    assert type(node) is type(value)


def test_a_file_with_a_comma_that_exists(load, tmp_path):
    path = tmp_path / 'a,b.pth'
    path.touch()
    assert load(cfg_options(f'model.neck={path}')).model.neck == str(path)


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('custom_hooks', r'^custom_hooks: got .*; expected a list of dicts, .*\[dict\(type='),
        ('model.steps', r'^--cfg-options model\.steps: got a dict, .* is a list; .*\[dict\(type='),
    ],
)
def test_a_dict_in_the_place_of_a_list(name, said, load):
    with pytest.raises(InputError, match=said) as caught:
        load({name: dict(type='EMAHook')})
    assert '\n' not in str(caught.value)


def test_an_item_of_a_list_by_its_number(load):
    assert load({'model.steps': {'1': dict(y=5)}}).model.steps[1].y == 5
