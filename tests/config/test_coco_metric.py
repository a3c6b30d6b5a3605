"""Settings of CocoMetric: refused in one line exactly where mmdet fails or reports a wrong number."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mobileone_mm.config.check import check_parts
from mobileone_mm.config.coco_metric import check_coco_metrics
from mobileone_mm.errors import InputError

ONLY_FAST = dict(metric='proposal_fast')
DETECTOR = dict(
    type='mmdet.SingleStageDetector',
    backbone=dict(type='Own'),
    bbox_head=dict(type='mmdet.SSDHead', num_classes=1),
)
#: what may be around a metric
PLACES = (
    ('', lambda metric: metric),
    (r'\.1', lambda metric: [dict(type='mmdet.DumpDetResults'), metric]),
    (r'\.metrics\.0', lambda metric: dict(type='Evaluator', metrics=[metric])),
)
MASKS = dict(DETECTOR, mask_head=dict(type='mmdet.FCNMaskHead'))


@pytest.fixture
def ann_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the host may write files
    box = dict(id=1, image_id=1, category_id=1, bbox=[10, 10, 50, 50], area=2500, iscrowd=0)
    table = dict(
        images=[dict(id=1, file_name='a.jpg', height=100, width=100)],
        annotations=[box],
        categories=[dict(id=1, name='red')],
    )
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps(table))
    return str(path)


def host_is_right(settings):
    """Evaluate a wrong box with the best score and a right one: each AP and recall is above 0."""
    from mmdet.evaluation.metrics import CocoMetric

    boxes = torch.tensor([[0.0, 0, 20, 20], [10, 10, 60, 60]])
    found = dict(bboxes=boxes, scores=torch.tensor([0.9, 0.8]), labels=torch.tensor([0, 0]))
    try:
        metric = CocoMetric(**settings)
        metric.dataset_meta = dict(classes=['red'])
        metric.process({}, [dict(img_id=1, ori_shape=(100, 100), pred_instances=found)])
        result = metric.evaluate(1)
    except (AssertionError, IndexError, KeyError, OSError, TypeError, ValueError):
        return False
    numbers = [value for key, value in result.items() if '_s' not in key and '_l' not in key]
    written = settings.get('format_only')
    return written or (bool(numbers) and min(numbers) > 0)


def check(settings, model=DETECTOR, around=lambda metric: metric, **more):
    metric = dict(type='mmdet.CocoMetric', **settings)
    check_coco_metrics(
        Config(dict(model=model, val_evaluator=around(metric), **more)), 'val_evaluator'
    )


@pytest.mark.parametrize(
    ('key', 'value', 'more', 'said'),
    [
        ('iou_thrs', [0.5], {}, r'got \[0\.5\]; expected None: pycocotools'),
        ('iou_thrs', 0.5, {}, r"got 0\.5; .*metric_items=\['mAP_50'\]"),
        ('iou_thrs', [0.5, 0.75], dict(metric=['proposal_fast', 'bbox']), 'expected None'),
        ('iou_thrs', '0.5', ONLY_FAST, "got '0.5'; "),
        ('metric', ['bbox', 'segm'], {}, 'expected no segm: the model has no head'),
        ('metric', [], {}, r'got \[\]; expected one of bbox'),
        ('metric', 'box', {}, "got 'box'; expected one of bbox, segm, proposal, proposal_fast, or"),
        ('ann_file', None, {}, "got None; .*'instances' in the meta_keys of PackDetInputs"),
        ('ann_file', '', {}, "got ''; expected the path"),
        ('ann_file', ['a.json'], {}, r"got \['a.json'\]; expected the path"),
        ('ann_file', 3, {}, 'got 3; expected the path'),
        ('proposal_nums', (1, 10), {}, r'got \(1, 10\); expected at least three'),
        ('proposal_nums', (1, 10), dict(metric='proposal'), 'expected at least three'),
        ('proposal_nums', (1, 10, 50), {}, '100 among them'),
        ('proposal_nums', (1, 10, 100), dict(metric='proposal'), 'under the names AR@100'),
        ('proposal_nums', (1, 10, 100), dict(metric_items=['AR@100']), 'under the names AR@100'),
        ('proposal_nums', 100, {}, 'expected a list of positive integers'),
        ('proposal_nums', ['1', '10', '100'], {}, 'expected a list of positive integers'),
        ('proposal_nums', [], ONLY_FAST, 'expected a list of positive integers'),
        ('metric_items', ['mAP50'], {}, r"got \['mAP50'\]; .*; did you mean 'mAP_50'\?"),
        ('metric_items', ['AR@10'], dict(metric='proposal'), 'expected None or a list of names: mAP'),
        ('metric_items', 'mAP', {}, "got 'mAP'; expected None or a list"),
        ('metric_items', [], {}, r'got \[\]; expected None or a list'),
        ('outfile_prefix', None, dict(format_only=True), 'expected the start of a path such as'),
        ('outfile_prefix', 3, dict(format_only=True), 'got 3; expected the start of a path'),
    ],
)  # fmt: skip
def test_settings_with_which_mmdet_fails(key, value, more, said, ann_file):
    settings = {'ann_file': ann_file, **more, key: value}
    assert not host_is_right(settings)
    pipeline = [dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'ori_shape'))]
    loader = dict(dataset=dict(pipeline=pipeline))
    for place, around in PLACES:
        with pytest.raises(InputError, match=rf'^val_evaluator{place}\.{key}: .*{said}'):
            check(settings, around=around, val_dataloader=loader)


@pytest.mark.parametrize(
    'settings',
    [
        dict(classwise=True),
        dict(ONLY_FAST, iou_thrs=[0.5]),
        dict(ONLY_FAST, iou_thrs=0.5),
        dict(ONLY_FAST, proposal_nums=(10, 20)),
        dict(ONLY_FAST, metric_items=['mAP50']),  # not read
        dict(iou_thrs=np.array([0.5, 0.75])),
        dict(proposal_nums=(100, 1, 10)),
        dict(proposal_nums=(1, 10, 100)),
        dict(proposal_nums=(1, 10, 50), metric_items=['mAP_50']),
        dict(proposal_nums=[300], use_mp_eval=True),  # as in mmdet's config of V3Det
        dict(metric=['bbox', 'proposal']),
        dict(metric='proposal', metric_items=('mAP', 'AR_m@1000')),
        dict(format_only=True, outfile_prefix='x', iou_thrs=0.5),
    ],
)
def test_settings_that_mmdet_takes(settings, ann_file):
    settings = dict(settings, ann_file=ann_file)
    assert host_is_right(settings)
    check(settings)


def test_models_that_may_predict_masks(ann_file):
    masks = dict(ann_file=ann_file, metric=['bbox', 'segm'])
    for model in (
        MASKS,
        dict(type='mmdet.RTMDet', bbox_head=dict(type='mmdet.RTMDetInsSepBNHead')),
        dict(type='mmdet.Mask2Former', panoptic_head=dict(type='mmdet.Mask2FormerHead')),
        dict(DETECTOR, bbox_head=dict(type='OfTheUser')),
    ):
        check(masks, model)


def test_annotations_of_the_dataset():
    """mmdet takes them from the samples, if the pipeline keeps them."""
    for keys, fits in ((('img_id', 'instances'), True), (('img_id',), False), (None, False)):
        pack = dict(type='mmdet.PackDetInputs', **(dict(meta_keys=keys) if keys else {}))
        data = dict(type='RepeatDataset', dataset=dict(pipeline=[dict(type='Own'), pack]))
        if fits:
            check({}, val_dataloader=dict(dataset=data))
            continue
        with pytest.raises(InputError, match=r'^val_evaluator\.ann_file: got None'):
            check({}, val_dataloader=dict(dataset=data))


def test_a_class_with_its_own_evaluation():
    check_coco_metrics(
        Config(dict(val_evaluator=dict(type='mmdet.LVISMetric', iou_thrs=[0.5]))), 'val_evaluator'
    )


def test_save_best_suggests_no_unknown_name():
    metric = dict(type='mmdet.CocoMetric', metric_items=['mAP50'])
    hook = dict(type='CheckpointHook', save_best='coco/x')
    parts = dict(val_dataloader={}, val_cfg={}, val_evaluator=metric)
    cfg = Config(dict(default_hooks=dict(checkpoint=hook), **parts))
    with pytest.raises(InputError, match='metric_items: got') as caught:
        check_parts(cfg, 'val_evaluator')
    assert 'bbox_mAP50' not in str(caught.value)
