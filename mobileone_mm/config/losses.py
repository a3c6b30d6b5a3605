"""Check the weights of losses in the config of a model.

The hosts use them in the first step. What does not fit ends in an error of torch there, or is a wrong
loss: a negative weight trains against its class.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.fileio import load

from ..errors import InputError, one_line
from .tree import class_of, items_of, type_name

_DECODE_HEAD = 'mmseg.models.decode_heads.decode_head'


def check_losses(cfg: Config) -> None:
    """Check ``class_weight``, ``pos_weight`` and ``loss_weight`` of each loss of the model."""
    for path, loss, (place, head) in _losses(cfg.get('model'), 'model', ('', {})):
        scope, _, kind = type_name(loss).rpartition('.')
        host = scope or cfg.get('default_scope')
        if 'loss_weight' in loss and not _is_weight(loss['loss_weight']):
            given = f'got {loss["loss_weight"]!r:.60}; expected a number of at least 0'
            raise InputError(f'{path}.loss_weight: {given}')
        for key in ('class_weight', 'pos_weight'):
            weights, where = loss.get(key), f'{path}.{key}'
            if isinstance(weights, str) and host == 'mmseg':
                weights = _from_file(weights, where)
            # mmdet's DETRHead has one weight for all classes, mmpretrain one for all positives.
            single = host == 'mmdet' or key == 'pos_weight'
            if weights is None or (single and _is_weight(weights)):
                continue
            _check_numbers(weights, where)
            if key == 'class_weight' and len(weights) and not any(weights):
                raise InputError(f'{where}: all weights are 0, so that the loss learns nothing')
            count = head.get('num_classes')
            if type(count) is not int or (host == 'mmseg' and _has_own_loss(head)):
                continue
            sizes = _sizes(loss, kind, host, path, head)
            if len(weights) not in sizes:
                needed = ' or '.join(map(str, sizes))
                why = ', the last for the background' if max(sizes) > count else ''
                why = ' with use_sigmoid' if sizes == (1,) else why
                raise InputError(
                    f'{where}: got {len(weights)} weights, but {place}.num_classes is {count}; the '
                    f'loss needs {needed}{why}'
                )


def _losses(
    node: Any, path: str, head: tuple[str, Mapping]
) -> Iterator[tuple[str, Mapping, tuple[str, Mapping]]]:
    """Yield path and dict of each loss, with path and dict of the part around it that has classes."""
    if isinstance(node, Mapping):
        if 'type' in node and 'loss' in path.rstrip('.0123456789').rpartition('.')[2]:
            yield path, node, head
        if node.get('num_classes') is not None:
            head = path, node
    for key, inner in items_of(node):
        yield from _losses(inner, f'{path}.{key}', head)


def _sizes(loss: Mapping, kind: str, host: Any, path: str, head: Mapping) -> tuple[int, ...]:
    """Return how many weights a loss takes."""
    number, sigmoid = head['num_classes'], loss.get('use_sigmoid')
    if host == 'mmdet' and not sigmoid:
        # Softmax of a box has the background as its last class.
        return (number + 1,) if 'loss_cls' in path.split('.') else (number, number + 1)
    if host == 'mmseg':
        # With sigmoid, torch would take a longer list as weights of the columns of an image.
        binary = kind == 'CrossEntropyLoss' and sigmoid
        return (1,) if binary else (head.get('out_channels') or number,)
    return (number,)


def _has_own_loss(head: Mapping) -> bool:
    """Return whether a head of mmseg computes losses by itself: SAN has scores for one more class."""
    method = getattr(class_of(head), 'loss_by_feat', None)
    return getattr(method, '__module__', _DECODE_HEAD) != _DECODE_HEAD


def _check_numbers(weights: Any, where: str) -> None:
    if not isinstance(weights, (list, tuple, np.ndarray)):
        raise InputError(
            f'{where}: got {weights!r:.60}; expected a list with a number for each class'
        )
    for number, weight in enumerate(weights):
        if not _is_weight(weight):
            raise InputError(
                f'{where}.{number}: got {weight!r:.60}; expected a number of at least 0'
            )


def _is_weight(value: Any) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and type(value) is not bool
    return number and 0 <= value < math.inf


def _from_file(name: str, where: str) -> Any:
    """Read a list of weights as mmseg does; None for a pickle, which could run code here."""
    if Path(name).suffix in ('.pkl', '.pickle'):
        return None
    try:
        return np.load(name) if name.endswith('.npy') else load(name)
    except Exception as error:  # each format has its own
        raise InputError(
            f"{where}: '{name}' cannot be read ({one_line(error)}); expected a list of numbers, or a "
            '.npy, .json or .yaml file with one'
        ) from error
