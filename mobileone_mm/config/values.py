"""Values of settings that every run has, checked before anything is built from them.

The hosts compare and add these values somewhere inside: ``lr=fast`` ends in a TypeError about ``<=``,
``batch_size=0`` names an argument of torch, and ``max_epochs=0`` trains nothing without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from ..errors import InputError


class _Number(NamedTuple):
    integer: bool = True
    least: int = 1
    never: bool = False  # -1 stands for never

    def allows(self, value: Any) -> bool:
        kinds = (int,) if self.integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        return value >= self.least or (self.never and value == -1)

    def __str__(self) -> str:
        kind = 'an integer' if self.integer else 'a number'
        return f'{kind} of at least {self.least}{", or -1 for never" if self.never else ""}'


_COUNT, _FROM_ZERO, _REAL = _Number(), _Number(least=0), _Number(integer=False, least=0)
_VALUES = {
    **{f'{part}_dataloader.batch_size': _COUNT for part in ('train', 'val', 'test')},
    **{f'{part}_dataloader.num_workers': _FROM_ZERO for part in ('train', 'val', 'test')},
    # mmengine takes whole floats such as 1e5 here.
    'train_cfg.max_epochs': _Number(integer=False),
    'train_cfg.max_iters': _Number(integer=False),
    'train_cfg.val_begin': _FROM_ZERO,
    'train_cfg.val_interval': _Number(integer=False),
    'optim_wrapper.accumulative_counts': _COUNT,
    'optim_wrapper.optimizer.lr': _REAL,
    'optim_wrapper.optimizer.weight_decay': _REAL,
    'default_hooks.checkpoint.interval': _Number(never=True),
    'default_hooks.checkpoint.max_keep_ckpts': _Number(never=True),
    'default_hooks.logger.interval': _COUNT,
    'randomness.seed': _FROM_ZERO,
}


def check_topk(cfg: Config, evaluator: str) -> None:
    """Check the ``topk`` of a classifier's head and evaluator against its classes.

    mmpretrain finds out at the end of the first evaluation, after an epoch of training.

    Args:
        cfg: The config.
        evaluator: The one that the run uses, ``val_evaluator`` or ``test_evaluator``.

    Raises:
        InputError: One of them is greater than the number of classes.
    """
    head = cfg.model.get('head') if isinstance(cfg.get('model'), Mapping) else None
    number = head.get('num_classes') if isinstance(head, Mapping) else None
    if not isinstance(number, int):
        return
    places = [('model.head', head)]
    found = cfg.get(evaluator)
    several = isinstance(found, (list, tuple))
    for index, node in enumerate(found if several else [found]):
        places.append((f'{evaluator}.{index}' if several else evaluator, node))
    for path, node in places:
        topk = node.get('topk') if isinstance(node, Mapping) else None
        if topk is not None and max([topk] if isinstance(topk, int) else topk) > number:
            raise InputError(
                f'{path}.topk: got {topk}, but the model has {number} classes; set it to (1,)'
            )


def check_values(cfg: Config) -> None:
    """Check the numbers of a config that every run has; what is absent or None is left alone.

    Raises:
        InputError: Naming the setting, what came and what is allowed.
    """
    for path, allowed in _VALUES.items():
        node: Any = cfg._cfg_dict
        for key in path.split('.'):
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None and not allowed.allows(node):
            raise InputError(f'{path}: got {node!r}; {allowed} is needed')
