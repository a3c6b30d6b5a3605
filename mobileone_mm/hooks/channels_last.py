"""A hook that keeps the checkpoints of a channels-last run in the contiguous memory format."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.utils import apply_to
from torch import Tensor

from ..registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep checkpoints contiguous, and convert the optimizer state that a resumed run has read.

    A run with channels_last and one without can therefore read each other's checkpoints. The Runner
    registers the hook if the config sets ``channels_last=True``.
    """

    priority = 'LOWEST'  # after EMAHook, which puts its average into the checkpoint

    def before_train(self, runner: Any) -> None:
        state = getattr(getattr(runner.optim_wrapper, 'optimizer', None), 'state', {})
        for parameter, entries in state.items():
            for key, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:  # noqa: ARG002
        for key in ('state_dict', 'ema_state_dict', 'optimizer'):
            content = checkpoint.get(key, {})  # in place: torch keeps versions in an attribute
            content.update(apply_to(dict(content), torch.is_tensor, Tensor.contiguous))
