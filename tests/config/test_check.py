"""Mistyped keys against variables of one's own."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mobileone_mm.config.keys import TOP_LEVEL_KEYS, check_keys, named_arguments
from mobileone_mm.config.read import check_options, load_config
from mobileone_mm.config.spelling import edit_distance, mistyped
from mobileone_mm.errors import InputError


@pytest.mark.parametrize(
    ('a', 'b', 'distance'),
    [
        ('', '', 0),
        ('abc', 'abc', 0),
        ('abc', '', 3),
        ('train_cgf', 'train_cfg', 1),
        ('kitten', 'sitting', 3),
        ('hooks', 'hook', 1),
        ('ca', 'abc', 3),
    ],
)
def test_edit_distance(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('default_hook', 'default_hooks'),
        ('optim_wraper', 'optim_wrapper'),
        ('modle', 'model'),
        ('train_dataloader_cfg', None),
        ('num_classes', None),
        ('img_scale', None),
    ],
)
def test_mistyped(name, meant):
    assert mistyped(name, TOP_LEVEL_KEYS) == meant


@pytest.mark.parametrize(
    'name',
    [
        'albu_train_transforms', 'backend_args', 'base_lr', 'batch_size', 'crop_size', 'data_root',
        'dataset_type', 'file_client_args', 'image_size', 'img_norm_cfg', 'max_epochs', 'metainfo',
        'norm_cfg', 'num_classes', 'num_last_epochs', 'optimizer', 'persistent_workers',
        'train_dataset', 'train_pipeline_stage2', 'val_evaluator_cfg', 'vis_backends',
    ],
)  # fmt: skip
def test_variables_of_public_configs_are_allowed(name):
    check_keys(Config({name: dict(), 'model': dict(type='X', test_cfg=dict(my_own=1))}))


def options(**values):
    check_options(
        Config(dict(model=dict(backbone=dict(arch='s0', depths=[1, 2]), neck=None))), values
    )


@pytest.mark.parametrize(
    'name',
    [
        'model.backbone.arch',
        'model.backbone.frozen_stages',
        'model.backbone.depths.1',
        'model.backbone.init_cfg.checkpoint',
        'model.neck.type',
        'randomness.seed',
        'load_from',
        'work_dir',
    ],
)
def test_options_that_are_allowed(name):
    options(**{name: 1})


@pytest.mark.parametrize(
    'name',
    [
        'model.backbon.arch',
        'model.backbone.depths.2',
        'model.backbone.arch.x',
        'my_variable',
        'modl.x',
    ],
)
def test_options_that_are_not(name):
    with pytest.raises(InputError, match=f'--cfg-options {name}'):
        options(**{name: 1})


def test_named_arguments():
    class Base:
        def __init__(self, a, *args, b=1, **kwargs):
            pass

    class Child(Base):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)

    assert named_arguments(Child) == {'a', 'b', 'c'}


def test_bases_of_the_hosts_by_name(tmp_path):
    """``mmseg::`` too, which mmengine looks for under another name than OneDL's."""
    pytest.importorskip('mmseg')
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'\n")
    assert load_config(path).model.decode_head.type == 'FCNHead'
