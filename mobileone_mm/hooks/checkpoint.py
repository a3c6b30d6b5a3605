"""A checkpoint hook that always keeps the requested number of checkpoints."""

from collections import deque
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from ..errors import InputError
from ..registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which removes an old checkpoint only after the new one is written.

    mmengine removes the oldest checkpoint first: with ``max_keep_ckpts=1`` and a full disk, no
    checkpoint remains to resume from. It also accepts any argument, and a mistyped one ends a run after
    its first epoch. Here it is a TypeError in the constructor.
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
        """Save the best checkpoint; an unknown metric is an InputError, in mmengine a KeyError."""
        for name in self.key_indicators if self.save_best else ():
            if metrics and name not in (*metrics, 'auto'):
                raise InputError(
                    f"default_hooks.checkpoint.save_best: got '{name}'; expected a metric of the "
                    f'validation: {", ".join(metrics)}'
                )
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        keep, outdated = self.max_keep_ckpts, None
        if keep > 0 and list(self.keep_ckpt_ids)[-1:] != [step]:
            # As mmengine does, also in the file; a deque of limited length drops the first one.
            kept: deque[int] = self.keep_ckpt_ids
            outdated = kept[0] if len(kept) == keep else None
            kept.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        self.max_keep_ckpts = -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta=meta)
        finally:
            self.max_keep_ckpts = keep
        if outdated is not None and is_main_process():
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
