"""Schedules that mmengine does not log."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from ..registry import HOOKS


@HOOKS.register_module()
class ScheduleLogHook(Hook):
    """Writes the weight decay of every iteration into the log, beside the learning rate.

    mmengine's own hook writes the learning rate and momentum alone, so an annealed decay, or one
    that leaks into groups that should have none, is not seen. Logged are ``weight_decay``, the
    greatest of all parameter groups, and ``weight_decay_min``, the least, if the two differ: it is
    0 throughout where norms and biases have none. They go wherever the learning rate goes: text and
    JSON log, TensorBoard.
    """

    priority = 'VERY_LOW'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        decays = [
            group['weight_decay']
            for optimizer in _optimizers(runner.optim_wrapper)
            for group in optimizer.param_groups
            if 'weight_decay' in group
        ]
        if not decays:
            return
        runner.message_hub.update_scalar('train/weight_decay', max(decays))
        if min(decays) != max(decays):
            runner.message_hub.update_scalar('train/weight_decay_min', min(decays))


def _optimizers(wrapper: Any) -> list[Any]:
    """The optimizers of a wrapper, or of a dict of wrappers."""
    if hasattr(wrapper, 'optim_wrappers'):
        return [inner.optimizer for inner in wrapper.optim_wrappers.values()]
    return [wrapper.optimizer]
