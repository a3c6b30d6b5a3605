"""A hook that logs the weight decay."""

from typing import Any

from mmengine.hooks import Hook

from ..registry import HOOKS


@HOOKS.register_module()
class ScheduleLogHook(Hook):
    """Log the weight decay of every iteration beside the learning rate.

    mmengine logs only learning rate and momentum. This hook logs ``weight_decay``, the largest of all
    parameter groups, and ``weight_decay_min``, the smallest, if the two differ.
    """

    priority = 'VERY_LOW'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        wrapper = runner.optim_wrapper
        decays = [
            group['weight_decay']
            for inner in getattr(wrapper, 'optim_wrappers', {'': wrapper}).values()
            for group in inner.optimizer.param_groups
            if 'weight_decay' in group
        ]
        if not decays:
            return
        runner.message_hub.update_scalar('train/weight_decay', max(decays))
        if min(decays) != max(decays):
            runner.message_hub.update_scalar('train/weight_decay_min', min(decays))
