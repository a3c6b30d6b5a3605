"""Checks of mmseg's heads: the threshold, and the number of a mask that a segmentor ignores.

mmseg has a default of 255 for this number in each part. With different numbers, a metric counts the
ignored pixels as wrong, or leaves out those of a class, without a message.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from ..errors import InputError
from .preprocessor import seg_pipelines
from .tree import arguments_of, class_of, mapping, type_name, walk

_DEFAULT = 255


def check_seg_heads(cfg: Config, evaluator: str, training: bool) -> None:
    """Check ``threshold`` of the heads, ``ignore_index`` of heads and IoUMetric, and ``seg_pad_val``.

    All must ignore the number of decode_head; a batch may be padded with the number of a class.
    """
    heads = list(_heads(cfg))
    if not heads:
        return
    for path, head in heads:
        threshold = head.get('threshold')
        is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if threshold is not None and not (is_number and 0 <= threshold <= 1):
            raise InputError(
                f'{path}.threshold: got {threshold!r:.60}; expected a number from 0 to 1'
            )
    source, number = heads[0][0], heads[0][1].get('ignore_index', _DEFAULT)
    for path, node in (*heads[1:], *_metrics(cfg, evaluator)):
        _compare(f'{path}.ignore_index', node.get('ignore_index', _DEFAULT), number, source)
    # Images that are resized can be smaller than the batch, which is then padded.
    steps = [step for _, pipeline in seg_pipelines(cfg) for step in pipeline] if training else []
    if any('Resize' in type_name(step) for step in steps):
        _check_padding(cfg, *heads[0])


def _check_padding(cfg: Config, source: str, head: Mapping) -> None:
    # The Runner passes that of the config on to a model without its own.
    own = mapping(mapping(cfg.model).get('data_preprocessor'))
    node, classes = own or mapping(cfg.get('data_preprocessor')), head.get('num_classes')
    pad = node.get('seg_pad_val', _DEFAULT)
    if type_name(node).rpartition('.')[2] != 'SegDataPreProcessor' or type(classes) is not int:
        return
    if type(pad) is not int or not 0 <= pad < max(classes, 2):
        where = f'{"model." if own else ""}data_preprocessor.seg_pad_val'
        _compare(where, pad, head.get('ignore_index', _DEFAULT), source)


def _heads(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Yield the heads that ignore a number; decode_head is the first."""
    model = mapping(cfg.get('model'))
    for part in ('decode_head', 'auxiliary_head'):
        for path, node in walk(model.get(part), f'model.{part}'):
            kind = class_of(node, cfg.get('default_scope'))
            if kind is not None and {'ignore_index', 'num_classes'} <= arguments_of(kind):
                yield path, node


def _metrics(cfg: Config, evaluator: str) -> Iterator[tuple[str, Mapping]]:
    for path, metric in walk(cfg.get(evaluator), evaluator):
        kind = class_of(metric, cfg.get('default_scope'))
        if kind is not None and 'IoUMetric' in [base.__name__ for base in kind.__mro__]:
            yield path, metric


def _compare(where: str, given: Any, number: Any, source: str) -> None:
    if given != number:
        raise InputError(
            f'{where}: got {given}, but {source} ignores the pixels of the number {number}; set it to '
            f'{number}'
        )
