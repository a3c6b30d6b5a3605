"""Keys and parts of a config that the hosts check late or never."""

import logging

import pytest
from mmengine.config import Config

from mobileone_mm.config.check import TOP_LEVEL_KEYS, check_keys, check_parts, check_values
from mobileone_mm.config.spelling import mistyped, within
from mobileone_mm.config.tree import arguments_of, class_of
from mobileone_mm.errors import InputError


@pytest.mark.parametrize(
    ('a', 'b', 'distance'),
    [
        ('', '', 0), ('abc', 'abc', 0), ('abc', '', 3), ('train_cgf', 'train_cfg', 1),
        ('kitten', 'sitting', 3), ('hooks', 'hook', 1), ('ca', 'abc', 3),
    ],
)  # fmt: skip
def test_within_some_edits(a, b, distance):
    for edits in range(5):
        assert within(edits, a, b) == within(edits, b, a) == (edits >= distance)


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('default_hook', 'default_hooks'), ('optim_wraper', 'optim_wrapper'), ('modle', 'model'),
        ('train_dataloader_cfg', None), ('num_classes', None), ('img_scale', None),
    ],
)  # fmt: skip
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


def check(part):
    cfg = Config({'model': dict(type='X'), **part})
    check_values(cfg)
    check_keys(cfg)


@pytest.mark.parametrize(
    ('part', 'said'),
    [
        (dict(log_level='INF'), "log_level: got 'INF'"),
        (dict(compile='yes'), "compile: got 'yes'"),
        (dict(optim_wrapper=dict(clip_grad=dict(max_nrm=1))), "clip_grad has no 'max_nrm'"),
        (
            dict(optim_wrapper=dict(paramwise_cfg=dict(norm_decay=0))),
            "paramwise_cfg has no 'norm_decay'",
        ),
        (
            dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'a.b': dict(lr_mul=1)}))),
            r"reads 'optim_wrapper\.paramwise_cfg\.custom_keys\.a\.b\.lr_mul'",
        ),
        (
            dict(custom_hooks=[dict(type='SwitchRecipeHook', schedule=[dict(los=1)])]),
            r"custom_hooks\.0\.schedule\.0 has no 'los'",
        ),
        (
            dict(model=dict(test_cfg=dict(nms=dict(iou_thresh=0.5)))),
            "test_cfg.nms has no 'iou_thresh'",
        ),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run(part, said):
    with pytest.raises(InputError, match=said):
        check(part)


@pytest.mark.parametrize(
    'part',
    [
        dict(log_level='DEBUG', compile=dict(mode='default')),
        dict(log_level=20, compile=None),
        dict(optim_wrapper=dict(clip_grad=dict(type='value', clip_value=1))),
        dict(optim_wrapper=dict(constructor='Own', paramwise_cfg=dict(own=1))),
        dict(custom_hooks=[dict(type='Own', schedule=[dict(own=1)])]),
        dict(model=dict(test_cfg=dict(nms=dict(type='soft_nms', sigma=0.5)))),
        dict(model=dict(test_cfg=dict(nms=dict(type='own_nms', own=1)))),
    ],
)
def test_what_the_hosts_take(part):
    check(part)


def test_a_default_hook_under_an_unknown_name():
    cfg = Config(dict(default_hooks=dict(logr=dict(interval=2))))
    with pytest.raises(
        InputError, match="default_hooks.logr: has no 'type'; allowed: checkpoint, logger"
    ):
        check_parts(cfg, 'val_evaluator')


def test_arguments_of_a_class():
    class Base:
        def __init__(self, a, *args, b=1, **kwargs):
            pass

    class Child(Base):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)

    assert arguments_of(Child) == {'a', 'b', 'c'}


@pytest.mark.parametrize(
    ('name', 'package'),
    [
        ('WandbVisBackend', 'wandb'),
        ('MLflowVisBackend', 'mlflow'),
        ('mmengine.ClearMLVisBackend', 'clearml'),
        ('TensorboardVisBackend', 'tensorboard'),
    ],
)
def test_back_end_without_its_package(name, package, monkeypatch):
    """mmengine finds out when it writes the config, with a traceback, in the first process alone."""
    cfg = Config(
        dict(visualizer=dict(vis_backends=[dict(type='LocalVisBackend'), dict(type=name)]))
    )
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(InputError, match=rf'vis_backends\.1\.type: .* needs the package {package}'):
        check_parts(cfg, 'val_evaluator')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    check_parts(cfg, 'val_evaluator')


def test_class_of_logs_nothing(monkeypatch):
    """Hosts lack some of mmengine's registries, and mmengine warns of each that is asked."""
    levels = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda *_, level, **__: levels.append(level))
    assert class_of({'type': 'ImageClassifier'}, 'mmpretrain').__name__ == 'ImageClassifier'
    assert class_of({'type': 'Absent'}, 'mmdet') is None
    assert class_of({'type': 'SGD'}, 'absent').__name__ == 'SGD'
    assert max(levels) < logging.WARNING
