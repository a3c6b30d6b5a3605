"""A hook that reports the steps which the loss scaler of mixed precision skips."""

from typing import Any

import numpy as np
from mmengine.hooks import Hook

from ..registry import HOOKS


@HOOKS.register_module()
class LossScaleHook(Hook):
    """Report skipped steps of ``AmpOptimWrapper``, and keep their NaN out of the logged averages.

    In float16 the scaler multiplies the loss, so that small gradients do not become 0. If a gradient
    overflows, it skips the step and halves the scale; after 2000 good steps it doubles the scale. The
    first steps of a run, and single later ones, are skipped. Their ``grad_norm`` is infinite or NaN and
    would hide all others of the window over which mmengine logs the mean. After the next good step
    this hook takes them out of the window and logs how many steps the scaler skipped.

    Args:
        patience: Number of successive skipped steps after which a warning appears.
    """

    def __init__(self, patience: int = 20) -> None:
        self.patience = patience
        self._skipped = 0  # successive steps
        self._stepped = False

    def before_train(self, runner: Any) -> None:
        if hasattr(runner.optim_wrapper, 'loss_scaler'):
            runner.optim_wrapper.optimizer.register_step_post_hook(self._after_step)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        overflow = getattr(optimizer, 'found_inf', None)  # fused optimizers skip by themselves
        self._stepped = overflow is None or not bool(overflow)

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is None or not runner.optim_wrapper.should_update():
            return
        if not self._stepped:
            self._skipped += 1
            if self._skipped % self.patience == 0:
                runner.logger.warning(
                    f'The loss scaler has skipped {self._skipped} successive steps, the scale is '
                    f'{scaler.get_scale():g}: gradients overflow at any scale. Use dtype=bfloat16, a '
                    'lower learning rate or full precision.'
                )
        elif self._skipped:
            runner.logger.info(
                f'The loss scaler skipped {self._skipped} steps before iteration {runner.iter + 1}, '
                f'because gradients overflowed; the scale is now {scaler.get_scale():g}. This is '
                'normal in the first steps and once in about 2000 steps.'
            )
            self._skipped = 0
            grad_norms = runner.message_hub.log_scalars.get('train/grad_norm')
            if grad_norms is not None:
                values, counts = grad_norms.data
                overflow = ~np.isfinite(values)
                values[overflow] = counts[overflow] = 0
        self._stepped = False

    def after_train(self, runner: Any) -> None:
        if self._skipped:
            runner.logger.warning(f'The loss scaler skipped the last {self._skipped} steps.')
