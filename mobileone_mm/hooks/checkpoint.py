"""A checkpoint hook that always keeps the requested number of checkpoints, and the best one."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from ..errors import InputError
from ..registry import HOOKS
from ..training.divergence import check_weights


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which removes an old checkpoint only after the new one is written.

    mmengine removes the oldest checkpoint first: with ``max_keep_ckpts=1`` and a full disk, no
    checkpoint remains to resume from. It also accepts any argument, and a mistyped one ends a run after
    its first epoch. Here it is a TypeError in the constructor. Weights with NaN or Inf end the run
    before an old checkpoint is removed. A metric that is NaN or Inf is never the best one.
    """

    max_keep_ckpts: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args:
            raise TypeError(
                f'{type(self).__name__}.__init__() got an unexpected keyword argument '
                f"'{next(iter(self.args))}'"
            )

    def before_train(self, runner: Any) -> None:
        super().before_train(runner)
        known = runner.message_hub.runtime_info
        for key in [key for key in known if key.startswith('best_score')]:
            if not math.isfinite(known[key]):  # of a resumed run; no metric would be better
                runner.message_hub.pop_info(key)

    def after_val_epoch(self, runner: Any, metrics: Any) -> None:
        """Save the best checkpoint; an unknown metric is an InputError, in mmengine a KeyError."""
        if self.save_best and metrics:
            metrics = self._comparable(runner, metrics)
            check_weights(runner)
        super().after_val_epoch(runner, metrics)

    def _comparable(self, runner: Any, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return the metrics with None, which mmengine leaves out, for each that is NaN or Inf."""
        if 'auto' in self.key_indicators:
            first = next(iter(metrics))
            try:
                self._init_rule(self.rules, [first])
            except ValueError as error:
                raise InputError(
                    f"default_hooks.checkpoint.rule: got None; save_best='auto' takes '{first}', which "
                    "needs rule='greater' or rule='less'"
                ) from error
        for name in self.key_indicators:
            if name not in metrics:
                raise InputError(
                    f"default_hooks.checkpoint.save_best: got '{name}'; expected a metric of the "
                    f'validation: {", ".join(metrics)}'
                )
            value = metrics[name]
            if isinstance(value, Sequence):
                raise InputError(
                    f"default_hooks.checkpoint.save_best: '{name}' has {len(value)} values; expected a "
                    'metric with one number'
                )
            if value is not None and not math.isfinite(value):
                runner.logger.warning(
                    f"The metric '{name}' of save_best is {value}; the best checkpoint stays as it is."
                )
                metrics = {**metrics, name: None}
        return metrics

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        check_weights(runner)
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
