"""A checkpoint hook that never has fewer checkpoints than it was told to keep."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from ..errors import InputError
from ..registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, with the outdated checkpoint removed after the new one is safe.

    mmengine removes the oldest checkpoint first: with ``max_keep_ckpts=1`` and a disk that is full,
    nothing is left to resume from. It also takes any argument and hands what it does not know to
    the Runner when the first checkpoint is due, so that a mistyped key ends a run after its first
    epoch; here it is a TypeError at once.
    """

    max_keep_ckpts: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args:
            raise TypeError(
                f'{type(self).__name__}.__init__() got an unexpected keyword argument '
                f"'{next(iter(self.args))}'"
            )

    def after_val_epoch(self, runner: Any, metrics: Any) -> None:
        """Save the best checkpoint.

        Raises:
            InputError: ``save_best`` is no metric of the validation; mmengine has a KeyError.
        """
        for name in self.key_indicators or () if self.save_best not in (None, 'auto') else ():
            if metrics and name not in metrics:
                raise InputError(
                    f"default_hooks.checkpoint.save_best: got '{name}'; the validation has "
                    f'{", ".join(metrics)}'
                )
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        keep = self.max_keep_ckpts
        outdated = self._advance(runner, step) if keep > 0 else None
        self.max_keep_ckpts = -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta=meta)
        finally:
            self.max_keep_ckpts = keep
        if outdated is not None and is_main_process():
            self._remove(outdated)

    def _advance(self, runner: Any, step: int) -> int | None:
        """Note the new step where mmengine does, in the file itself, and name the outdated one."""
        kept: deque[int] = self.keep_ckpt_ids
        if kept and kept[-1] == step:
            return None
        outdated = kept[0] if len(kept) == self.max_keep_ckpts else None
        kept.append(step)  # its maximal length drops the first
        runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        return outdated

    def _remove(self, step: int) -> None:
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif Path(path).is_dir():  # deepspeed's checkpoints
            self.file_backend.rmtree(path)
