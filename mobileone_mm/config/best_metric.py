"""Checks of ``save_best`` before a run; mmengine looks at it after the first validation."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log

from ..errors import InputError
from .spelling import did_you_mean
from .tree import class_of, mapping, type_name

_RULES = ('rule', 'greater_keys', 'less_keys')


def check_save_best(cfg: Config, path: str, hook: Mapping) -> None:
    """Check that the validation yields the metric by which a CheckpointHook selects the best.

    Metrics whose names do not follow from the config are not checked: those of a user's class, and
    those of a loop other than mmengine's ``ValLoop``.

    Raises:
        InputError: Names the setting and the metrics of the validation.
    """
    best = hook.get('save_best')
    if best is None:
        return
    given = [best] if isinstance(best, str) else best
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) for name in given):
        raise InputError(
            f"{path}.save_best: got {best!r}; expected 'auto', a metric of val_evaluator, or several"
        )
    _check_validation(cfg, path, best)
    names = list(_names(cfg.get('val_evaluator')))
    if not names or None in names or type_name(cfg.val_cfg) not in ('', 'ValLoop'):
        return
    known = [name for name in names if name is not None]
    for name in given:
        if name != 'auto' and not any(fnmatchcase(name, pattern) for pattern in known):
            raise InputError(
                f"{path}.save_best: got '{name}'; expected a metric of val_evaluator: "
                f'{", ".join(known)}{did_you_mean(name, known, listed=False)}'
            )
        if name == 'auto':
            _check_rule(path, hook, known[0])


def _check_validation(cfg: Config, path: str, best: Any) -> None:
    if cfg.get('val_cfg') is None:
        raise InputError(
            f'{path}.save_best: got {best!r}, but the config has no validation; set it to None, or set '
            'val_cfg, val_dataloader and val_evaluator'
        )
    if late := _late_begin(cfg):
        raise InputError(f'{late} for {path}.save_best={best!r}; lower it')


def warn_without_validation(cfg: Config) -> None:
    """Log a warning if the validation would begin after the end of the training."""
    if cfg.get('val_cfg') is not None and (late := _late_begin(cfg)):
        text = f'{late}; lower it, or set val_cfg, val_dataloader and val_evaluator to None'
        print_log(text, 'current', logging.WARNING)


def _late_begin(cfg: Config) -> str:
    """Return that no validation begins before the training ends; empty if one does."""
    loop = mapping(cfg.get('train_cfg'))
    begin = loop.get('val_begin')
    for key in ('max_epochs', 'max_iters'):
        last = loop.get(key)
        if isinstance(begin, int) and isinstance(last, (int, float)) and begin > last:
            return (
                f'train_cfg.val_begin: got {begin}, but {key} is {last}, so there is no validation'
            )
    return ''


def _check_rule(path: str, hook: Mapping, first: str) -> None:
    """Check that mmengine knows whether a greater value of the metric of 'auto' is better."""
    try:
        CheckpointHook(save_best=first, **{key: hook[key] for key in _RULES if key in hook})
    except ValueError as error:
        raise InputError(
            f"{path}.rule: got None; save_best='auto' takes '{first}', which needs rule='greater' or "
            "rule='less'"
        ) from error


def _names(evaluator: Any) -> Iterator[str | None]:
    """Yield the names of all metrics of an evaluator; None for a part whose names are not known."""
    parts = evaluator if isinstance(evaluator, Sequence) else [evaluator]
    for part in parts:
        cls = class_of(part)
        of_class = None if cls is None else f'{cls.__module__.partition(".")[0]}.{cls.__name__}'
        names: Sequence[str | None] = ()
        if cls is not None and of_class in _OF_CLASSES:
            arguments = {k: p.default for k, p in inspect.signature(cls).parameters.items()}
            with suppress(AttributeError, KeyError, TypeError, ValueError):  # the class refuses it
                names = _OF_CLASSES[of_class]({**arguments, **part})
        prefix = mapping(part).get('prefix') or getattr(cls, 'default_prefix', None)
        for name in names or [None]:
            yield f'{prefix}/{name}' if prefix and name else name


def _coco(node: Mapping) -> list[str]:
    if node['format_only']:
        return []
    names = []
    for metric in [node['metric']] if isinstance(node['metric'], str) else node['metric']:
        if metric == 'proposal_fast':
            names += [f'AR@{number}' for number in node['proposal_nums']]
        elif metric == 'proposal':
            of_all = [f'AR@{number}' for number in (100, 300, 1000)]
            names += node['metric_items'] or of_all + [f'AR_{size}@1000' for size in 'sml']
        else:
            of_all = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
            names += [f'{metric}_{item}' for item in node['metric_items'] or of_all]
            names += ['*_precision'] if node['classwise'] else []  # of each class
    return names


def _iou(node: Mapping) -> list[str]:
    groups = dict(
        mIoU=['mIoU', 'mAcc'],
        mDice=['mDice', 'mAcc'],
        mFscore=['mFscore', 'mPrecision', 'mRecall'],
    )
    given = node['iou_metrics']
    names = [
        name for kind in ([given] if isinstance(given, str) else given) for name in groups[kind]
    ]
    return [] if node['format_only'] else list(dict.fromkeys(['aAcc', *names]))


def _accuracy(node: Mapping) -> list[str]:
    topk = node['topk']
    ranks = [topk] if isinstance(topk, int) else topk
    return [f'top{k}{suffix}' for k in ranks for suffix in _thresholds(node['thrs'])]


def _single_label(node: Mapping) -> list[str]:
    average = {None: '_classwise', 'micro': '_micro'}.get(node['average'], '')
    return [f'{k}{suffix}{average}' for suffix in _thresholds(node['thrs']) for k in node['items']]


def _thresholds(given: Any) -> list[str]:
    if not isinstance(given, Sequence) or len(given) == 1:
        return ['']
    return ['_no-thr' if value is None else f'_thr-{value:.2f}' for value in given]


#: names of the metrics of a class of the hosts, without the prefix, in their order
_OF_CLASSES: dict[str, Callable[[Mapping], list[str]]] = {
    'mmdet.CocoMetric': _coco,
    'mmseg.IoUMetric': _iou,
    'mmpretrain.Accuracy': _accuracy,
    'mmpretrain.SingleLabelMetric': _single_label,
    'mmpretrain.AveragePrecision': lambda node: [
        'AP_classwise' if node['average'] is None else 'mAP'
    ],
}
