"""Check the settings of mmdet's ``CocoMetric`` before a run.

mmdet accepts them, and most fail in the first evaluation. Others end in a number that is wrong: an AP
of -1, or an average recall under the name of another one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from ..errors import InputError
from .spelling import did_you_mean
from .tree import class_of, mapping, type_name, walk

_MODULE = 'mmdet.evaluation.metrics.coco_metric'
_METRICS = ('bbox', 'segm', 'proposal', 'proposal_fast')
_NUMBERS = (100, 300, 1000)
_RECALLS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', *_RECALLS)
_DEFAULTS = dict(
    ann_file=None, metric='bbox', proposal_nums=_NUMBERS, iou_thrs=None, metric_items=None,
    format_only=False, outfile_prefix=None, use_mp_eval=False,
)  # fmt: skip


class _Metric(NamedTuple):
    """The settings of a metric, with mmdet's defaults, and the config around it."""

    settings: Mapping[str, Any]
    cfg: Config
    loader: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """Entries of ``metric``."""
        given = self.settings['metric']
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def by_coco(self) -> bool:
        """Whether pycocotools matches the boxes; mmdet itself computes ``proposal_fast``."""
        return not self.settings['format_only'] and any(k != 'proposal_fast' for k in self.kinds)

    @property
    def summed_by_coco(self) -> bool:
        """Whether pycocotools computes the numbers; with ``use_mp_eval``, mmdet does."""
        return self.by_coco and not self.settings['use_mp_eval']

    @property
    def items(self) -> set[str]:
        """Names of the numbers of pycocotools that are reported; of the APs, mAP stands for all."""
        if not self.by_coco:
            return set()
        if self.settings['metric_items'] is not None:
            return set(self.settings['metric_items'])
        of_boxes = {'mAP'} if {'bbox', 'segm'}.intersection(self.kinds) else set()
        return of_boxes | set(_RECALLS if 'proposal' in self.kinds else ())


def _is_list_of(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(fits, value))


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, PathLike)) and value != ''


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _fits_iou(metric: _Metric, value: Any) -> bool:
    if value is None or isinstance(value, np.ndarray) or metric.settings['format_only']:
        return True
    # pycocotools compares the whole with 0.5, which needs an array.
    return not metric.by_coco and (_is_number(value) or _is_list_of(value, _is_number))


def _fits_names(metric: _Metric, value: Any) -> bool:
    used = value if metric.settings['use_mp_eval'] else value[:3]
    return tuple(used) == _NUMBERS or metric.items.isdisjoint(_RECALLS)


#: setting, whether its value fits, and what is allowed; a rule relies on the rules before it
_RULES: tuple[tuple[str, Callable[[_Metric, Any], bool], str], ...] = (
    ('ann_file', lambda _, v: v is None or _is_path(v), "the path of a file in COCO's format"),
    (
        'metric',
        lambda _, v: v in _METRICS if isinstance(v, str) else (
            isinstance(v, list) and _is_list_of(v, lambda kind: kind in _METRICS)
        ),
        f'one of {", ".join(_METRICS)}, or a list of them',
    ),
    (
        'metric_items',
        lambda m, v: v is None or not m.by_coco or _is_list_of(v, lambda item: item in _ITEMS),
        f'None or a list of names: {", ".join(_ITEMS)}',
    ),
    (
        'iou_thrs',
        _fits_iou,
        "None: pycocotools cannot use other thresholds from a config (metric_items=['mAP_50'] reports "
        "the AP at 0.5); metric='proposal_fast' takes a number or a list of numbers",
    ),
    ('proposal_nums', lambda _, v: _is_list_of(v, _is_count), 'a list of positive integers'),
    (
        'proposal_nums',
        lambda m, v: len(v) >= 3 or not m.summed_by_coco,
        'at least three numbers such as (100, 300, 1000)',
    ),
    (
        'proposal_nums',
        lambda m, v: 100 in v or not m.summed_by_coco or 'mAP' not in m.items,
        'numbers with 100 among them: pycocotools computes mAP of 100 boxes in each image, and reports '
        '-1 without them',
    ),
    (
        'proposal_nums',
        _fits_names,
        f'{_NUMBERS}: mmdet reports the average recalls under the names AR@100, AR@300 and AR@1000, '
        "whatever the numbers are (metric='proposal_fast' takes other ones)",
    ),
    (
        'outfile_prefix',
        lambda m, v: not m.settings['format_only'] or (isinstance(v, str) and v != ''),
        "the start of a path such as 'work_dirs/results' for format_only=True; mmdet adds .bbox.json",
    ),
    (
        'metric',
        lambda m, _: m.settings['format_only'] or 'segm' not in m.kinds or _may_predict_masks(m.cfg),
        'no segm: the model has no head that predicts masks',
    ),
    (
        'ann_file',
        lambda m, v: v is not None or _keeps_instances(m.cfg.get(m.loader)),
        "the path of a file in COCO's format, or 'instances' in the meta_keys of PackDetInputs",
    ),
)  # fmt: skip


def check_coco_metrics(cfg: Config, evaluator: str) -> None:
    """Check each ``CocoMetric`` of an evaluator, and each derived class that evaluates as it does.

    Raises:
        InputError: Names the setting, its value and what is allowed.
    """
    for path, node in _metrics(cfg.get(evaluator), evaluator):
        metric = _Metric({**_DEFAULTS, **node}, cfg, evaluator.replace('evaluator', 'dataloader'))
        for key, fits, expected in _RULES:
            value = metric.settings[key]
            if not fits(metric, value):
                raise InputError(
                    f'{path}.{key}: got {value!r:.60}; expected {expected}{_hint(key, value)}'
                )


def _metrics(evaluator: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    for where, node in walk(evaluator, path):
        cls = class_of(node, node.get('_scope_'))
        methods = (getattr(cls, name, None) for name in ('__init__', 'compute_metrics'))
        if all(getattr(method, '__module__', '') == _MODULE for method in methods):
            yield where, node


def _hint(key: str, value: Any) -> str:
    if key != 'metric_items' or not isinstance(value, Sequence) or isinstance(value, str):
        return ''
    wrong = next((item for item in value if isinstance(item, str) and item not in _ITEMS), None)
    return did_you_mean(wrong, _ITEMS, listed=False) if wrong else ''


def _may_predict_masks(cfg: Config) -> bool:
    """Return whether a model has a part for masks, or a head that is not of mmdet."""
    for path, node in walk(cfg.get('model'), 'model'):
        key = path.rpartition('.')[2]
        name = f'{key} {type_name(node)}'.lower()
        if any(word in name for word in ('mask', 'panoptic', 'ins')):  # RTMDetInsHead, SparseInst
            return True
        if path == 'model' or key.endswith('head'):
            module = getattr(class_of(node, node.get('_scope_')), '__module__', '')
            if module.partition('.')[0] not in ('mmdet', 'mobileone_mm'):
                return True
    return 'model' not in cfg


def _keeps_instances(loader: Any) -> bool:
    """Return whether the pipeline of a loader may hand on the annotations of the dataset."""
    return all(
        'instances' in (node.get('meta_keys') or ())
        for _, node in walk(mapping(loader).get('dataset'))
        if type_name(node).rpartition('.')[2] == 'PackDetInputs'
    )
