"""A hook that ends a run at the first loss that is NaN or Inf."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict

from ..registry import HOOKS
from ..training.divergence import check_weights, diverged, first_of_all


@HOOKS.register_module()
class LossCheckHook(Hook):
    """End a run at the iteration whose loss is NaN or Inf, before log, averages and checkpoints get it.

    mmengine trains on, and its CheckpointHook deletes the good checkpoints in favour of those with
    NaN. mmdet's CheckInvalidLossHook looks at each 50th iteration and ends the run with
    ``AssertionError: None``. A value is a loss if its name contains 'loss', as in mmengine. All
    processes end at the same iteration.

    A loss scaler (``AmpOptimWrapper``) skips the step of such an iteration, and the run goes on while
    weights and BN statistics are finite. LossScaleHook ends it if the scaler cannot recover.

    Raises:
        InputError: Names the iteration, the losses, the learning rate and the last checkpoint.
    """

    priority = 'HIGHEST'  # before the log, the averages and the checkpoints

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,  # noqa: ARG002
        outputs: Any = None,
    ) -> None:
        losses = _losses(outputs)
        if not losses or not _in_any_process(not all(map(_is_finite, losses.values()))):
            return
        if any(scaler.is_enabled() for scaler in loss_scalers(runner.optim_wrapper)):
            check_weights(runner)
            return
        raise diverged(runner, ' and '.join(first_of_all(non_finite_losses(outputs))))

    def before_val_epoch(self, runner: Any) -> None:
        check_weights(runner)  # metrics and drawings of NaN fail in many ways


def non_finite_losses(outputs: Any) -> list[str]:
    """Return which losses of an iteration are NaN or Inf: the parts, if there are any, not the sum."""
    found = {
        key: value for key, value in _losses(outputs, parts=True).items() if not _is_finite(value)
    }
    if len(found) > 1:
        found.pop('loss', None)
    return [
        f'{key} is {"NaN" if math.isnan(_number(value)) else "Inf"}' for key, value in found.items()
    ]


def loss_scalers(wrapper: Any) -> list[Any]:
    """Return the loss scalers of an optimizer wrapper, or of several wrappers."""
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [one.loss_scaler for one in wrappers if getattr(one, 'loss_scaler', None) is not None]


def _losses(outputs: Any, parts: bool = False) -> dict[str, Any]:
    """Return the sum ``loss``; all losses with ``parts``, or if the model gives no sum."""
    if not isinstance(outputs, Mapping):
        return {}
    if 'loss' in outputs and not parts:
        return {'loss': outputs['loss']}
    return {key: value for key, value in outputs.items() if 'loss' in key}


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _is_finite(value: Any) -> bool:
    return math.isfinite(_number(value))


def _in_any_process(found: bool) -> bool:
    """Return whether a process has found something: one number, beside the gradients of a step."""
    if get_world_size() == 1:
        return found
    flag = torch.tensor(float(found))
    all_reduce(flag, 'max')
    return bool(flag)
