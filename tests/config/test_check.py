"""Keys and parts of a config that the hosts check late or never."""

import logging

import pytest
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler

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


def test_variables_of_public_configs_are_allowed():
    for name in (
        'albu_train_transforms', 'backend_args', 'base_lr', 'batch_size', 'crop_size', 'data_root',
        'dataset_type', 'file_client_args', 'image_size', 'img_norm_cfg', 'max_epochs', 'metainfo',
        'norm_cfg', 'num_classes', 'num_last_epochs', 'optimizer', 'persistent_workers',
        'train_dataset', 'train_pipeline_stage2', 'val_evaluator_cfg', 'vis_backends',
    ):  # fmt: skip
        check_keys(Config({name: dict(), 'model': dict(type='X', test_cfg=dict(my_own=1))}))


def check(part):
    cfg = Config({'model': dict(type='X'), **part})
    check_values(cfg)
    check_keys(cfg)


KEYS = 'optim_wrapper.paramwise_cfg.custom_keys'
RECIPE = dict(type='SwitchRecipeHook', schedule=[dict(los=1)])
NUMBERS = [
    ('train_dataloader.batch_size', 0), ('train_dataloader.batch_size', 2.5),
    ('train_dataloader.num_workers', -1), ('optim_wrapper.optimizer.lr', 'fast'),
    ('train_cfg.max_epochs', 'soon'), ('train_cfg.max_epochs', 0), ('train_cfg.val_interval', 0),
    ('default_hooks.checkpoint.interval', 'often'), ('default_hooks.logger.interval', 0),
    ('randomness.seed', 'luck'), ('optim_wrapper.clip_grad.max_norm', 'x'),
]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('log_level', 'INF', "log_level: got 'INF'"),
        ('randomness.seed', 2**32, 'seed: got 4294967296; expected at most 4294967295'),
        ('env_cfg.mp_cfg.mp_start_method', 'x', "start_method: got 'x'; expected one of .*spawn"),
        ('compile', 'yes', "compile: got 'yes'"),
        ('work_dir', 20260101, 'work_dir: got 20260101; expected a string; use --work-dir'),
        ('optim_wrapper.clip_grad.max_nrm', 1, "clip_grad has no 'max_nrm'"),
        ('optim_wrapper.paramwise_cfg.norm_decay', 0, "paramwise_cfg has no 'norm_decay'"),
        (KEYS, {'a.b': dict(lr_mul=1)}, rf"reads '{KEYS}\.a\.b\.lr_mul'"),
        ('custom_hooks', [RECIPE], r"custom_hooks\.0\.schedule\.0 has no 'los'"),
        ('model.test_cfg.nms.iou_thresh', 0.5, "test_cfg.nms has no 'iou_thresh'"),
        *((name, value, f'^{name}: got {value!r}; expected an? ') for name, value in NUMBERS),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run(name, value, said):
    cfg = Config({})
    cfg.merge_from_dict({name: value})
    with pytest.raises(InputError, match=said):
        check(cfg)


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
    said = "default_hooks.logr: has no 'type'; allowed: average_check, checkpoint"
    with pytest.raises(InputError, match=said):
        check_parts(cfg, 'val_evaluator')


def test_arguments_of_a_class():
    class Base:
        def __init__(self, a, *args, b=1, **kwargs):
            pass

    class Child(Base):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)

    assert arguments_of(Child) == {'a', 'b', 'c'}


@pytest.mark.parametrize('name', ['Wandb', 'MLflow', 'mmengine.ClearML', 'Tensorboard'])
def test_back_end_without_its_package(name, monkeypatch):
    """mmengine finds out when it writes the config, with a traceback, in the first process alone."""
    back_ends = [dict(type='LocalVisBackend'), dict(type=f'{name}VisBackend')]
    cfg = Config(dict(visualizer=dict(vis_backends=back_ends)))
    package = name.rpartition('.')[2].lower()
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(InputError, match=rf'vis_backends\.1\.type: .* needs the package {package}'):
        check_parts(cfg, 'val_evaluator')
    cfg.visualizer.vis_backends = back_ends[1]  # mmengine takes one dict, too
    with pytest.raises(InputError, match=r'vis_backends\.type: '):
        check_parts(cfg, 'val_evaluator')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    check_parts(cfg, 'val_evaluator')


def test_class_of_logs_nothing(monkeypatch):
    """Hosts lack some of mmengine's registries, and mmengine warns of each that is asked."""
    levels = []
    class_of({'type': 'Absent'}, 'mmdet')  # a host that is imported later keeps the function below
    monkeypatch.setattr('mmengine.logging.print_log', lambda *_, level, **__: levels.append(level))
    assert class_of({'type': 'ImageClassifier'}, 'mmpretrain').__name__ == 'ImageClassifier'
    assert class_of({'type': 'Absent'}, 'mmdet') is None
    assert class_of({'type': 'SGD'}, 'absent').__name__ == 'SGD'
    assert max(levels) < logging.WARNING


@pytest.mark.parametrize('loop', ['val', 'test'])
def test_the_parts_of_a_loop_belong_together(loop):
    parts = {f'{loop}_{part}': {} for part in ('dataloader', 'cfg', 'evaluator')}
    for cfg in (parts, {}, dict.fromkeys(parts)):
        check_parts(Config(cfg), 'val_evaluator')
    with pytest.raises(InputError, match=f'^config: has no {loop}_cfg; expected all of {loop}_'):
        check_parts(Config({**parts, f'{loop}_cfg': None}), 'val_evaluator')


COCO = dict(type='mmdet.CocoMetric', metric=['bbox', 'segm'])
TOP = dict(type='mmpretrain.Accuracy', topk=(1, 5))
IOU = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU', 'mFscore'])
LABEL = dict(type='mmpretrain.SingleLabelMetric', items=('f1-score',))
OWN = dict(type='Own')


def with_best(best, evaluator, **parts):
    hook = dict(type='CheckpointHook', save_best=best, rule=parts.pop('rule', None))
    loop = {k: parts.pop(k) for k in ('val_begin', 'max_epochs') if k in parts}
    parts = dict(val_dataloader={}, val_cfg={}, val_evaluator=evaluator, train_cfg=loop, **parts)
    return Config(dict(default_hooks=dict(checkpoint=hook), **parts))


@pytest.mark.parametrize(
    ('best', 'evaluator', 'said'),
    [
        (
            'bbox_mAP',
            COCO,
            "save_best: got 'bbox_mAP'; expected a metric of .*: coco/bbox_mAP, coco/bbox",
        ),
        ('coco/AR@100', COCO, 'coco/segm_mAP_l'),
        ('coco/cat_precision', COCO, 'got'),
        ('mIoU', [TOP], 'expected a metric of val_evaluator: accuracy/top1, accuracy/top5$'),
        ('mDice', IOU, 'aAcc, mIoU, mAcc, mFscore, mPrecision, mRecall'),
        ('mIou', IOU, "; did you mean 'mIoU'"),
        (['accuracy/top1', 'x'], [TOP, LABEL], "got 'x'; .*, accuracy/top5, single-label/f1-score"),
        ('accuracy/top1', dict(TOP, thrs=(0.5, None)), 'top1_thr-0.50, accuracy/top1_no-thr'),
        ('accuracy/top1', dict(TOP, prefix='val'), 'val/top1, val/top5'),
        ('auto', LABEL, "rule: got None; save_best='auto' takes 'single-label/f1-score'"),
    ],
)
def test_a_best_metric_that_the_validation_does_not_yield(best, evaluator, said):
    """mmengine says so after the first validation; nothing is said of a test."""
    cfg = with_best(best, evaluator)
    with pytest.raises(InputError, match=f'default_hooks.checkpoint.*{said}'):
        check_parts(cfg, 'val_evaluator')
    check_parts(cfg, 'test_evaluator')


@pytest.mark.parametrize(
    ('best', 'evaluator', 'parts'),
    [
        ('coco/segm_mAP_50', COCO, {}),
        ('coco/cat_precision', dict(COCO, classwise=True), {}),
        ('coco/bbox_mAP_s', dict(COCO, metric='bbox', metric_items=['mAP_s']), {}),
        ('coco/AR@300', dict(COCO, metric='proposal_fast'), {}),
        ('coco/AR_l@1000', dict(COCO, metric='proposal'), {}),
        (['mRecall', 'aAcc'], [TOP, IOU], {}),
        ('single-label/f1-score', LABEL, dict(rule='greater')),
        ('auto', LABEL, dict(rule='greater')),
        ('auto', IOU, {}),
        ('x', [TOP, OWN], {}),  # a class of the user
        ('teacher/coco/bbox_mAP', COCO, dict(val_cfg=dict(type='TeacherStudentValLoop'))),
        (None, COCO, {}),
        ('mIoU', IOU, dict(val_begin=3, max_epochs=3)),
    ],
)
def test_a_best_metric_that_is_fine(best, evaluator, parts):
    cfg = with_best(best, evaluator, **{k: v for k, v in parts.items() if k != 'val_cfg'})
    cfg.val_cfg = parts.get('val_cfg', cfg.val_cfg)
    check_parts(cfg, 'val_evaluator')


@pytest.mark.parametrize('best', [True, 1, [1], dict(a=1)])
def test_a_best_metric_that_is_no_name(best):
    with pytest.raises(InputError, match="save_best: got .*; expected 'auto', a metric of"):
        check_parts(with_best(best, TOP), 'val_evaluator')


@pytest.mark.parametrize('topk', ['top1', 0, -1, (1, 6), (1, 'a'), (), True])
@pytest.mark.parametrize('where', ['val_evaluator', 'model.head'])
def test_topk(where, topk):
    head = dict(num_classes=5)
    cfg = with_best('accuracy/top1', dict(TOP, topk=(1, 5)), model=dict(head=head))
    check_parts(cfg, 'val_evaluator')
    cfg.merge_from_dict({f'{where}.topk': topk})
    with pytest.raises(InputError, match=rf'^{where}\.topk: got .*, but the model has 5 classes'):
        check_parts(cfg, 'val_evaluator')


def test_a_learning_rate_of_0(monkeypatch):
    said = []
    monkeypatch.setattr('mobileone_mm.config.check.print_log', lambda text, *_: said.append(text))
    for rate in (0.1, 0):
        cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=rate))))
        for evaluator in ('val_evaluator', 'test_evaluator'):
            check_parts(cfg, evaluator)
    assert said == [
        'optim_wrapper.optimizer.lr: got 0: no weight changes, unless a scheduler raises it'
    ]


def test_a_best_metric_without_a_validation():
    cfg = with_best('mIoU', None)
    cfg.val_cfg = cfg.val_dataloader = None
    with pytest.raises(InputError, match="save_best: got 'mIoU', but the config has no validation"):
        check_parts(cfg, 'val_evaluator')
    with pytest.raises(InputError, match='^train_cfg.val_begin: got 4, but max_epochs is 3'):
        check_parts(with_best('mIoU', IOU, val_begin=4, max_epochs=3), 'val_evaluator')


def test_a_validation_that_begins_too_late(monkeypatch):
    """Without save_best, too; the user may want it."""
    lines = []
    monkeypatch.setattr(
        'mobileone_mm.config.best_metric.print_log', lambda text, *_: lines.append(text)
    )
    check_parts(with_best(None, IOU, val_begin=3, max_epochs=3), 'val_evaluator')
    check_parts(with_best(None, IOU, val_begin=4, max_epochs=3), 'test_evaluator')
    assert not lines
    check_parts(with_best(None, IOU, val_begin=4, max_epochs=3), 'val_evaluator')
    (line,) = lines
    assert line.startswith('train_cfg.val_begin: got 4, but max_epochs is 3, so there is no valid')


class OwnSampler(InfiniteSampler):
    pass


@pytest.mark.parametrize('part', ['val', 'test'])
@pytest.mark.parametrize(
    ('settings', 'said'),
    [
        (dict(drop_last=True, batch_size=2), r'\.drop_last: got True; expected False'),
        (dict(drop_last=True, batch_size=1), None),
        (dict(drop_last=False, batch_size=2), None),
        (
            dict(batch_sampler=dict(type='X', drop_last=True), batch_size=2),
            r'\.batch_sampler\.drop_last: got True',
        ),
        (dict(sampler=dict(type='InfiniteSampler')), r"\.sampler\.type: got 'InfiniteSampler'"),
        (dict(sampler=dict(type=OwnSampler)), r"\.sampler\.type: got 'OwnSampler', which does not"),
        (dict(sampler=dict(type='mmdet.GroupMultiSourceSampler')), r'\.sampler\.type: got'),
        (dict(sampler=dict(type='mmpretrain.RepeatAugSampler')), r'\.sampler\.type: got'),
        (dict(sampler=dict(type='DefaultSampler', shuffle=True)), None),
        (dict(sampler=dict(type='mmpretrain.SequentialSampler')), None),
    ],
)
def test_an_evaluation_takes_each_image_once(part, settings, said):
    loader = f'{part}_dataloader'
    parts = {loader: settings, f'{part}_cfg': {}, f'{part}_evaluator': {}}
    cfg = Config({**parts, 'train_dataloader': dict(drop_last=True, batch_size=2)})
    if said is None:
        check_parts(cfg, f'{part}_evaluator')
        return
    with pytest.raises(InputError, match=f'^{loader}{said}'):
        check_parts(cfg, f'{part}_evaluator')
