"""A hook that reports the steps which the loss scaler skips, and ends a run without any others."""

from typing import Any

import numpy as np
from mmengine.hooks import Hook

from ..registry import HOOKS
from ..training.divergence import diverged
from .loss_check import non_finite_losses

#: A gradient that overflows float16 at this scale is greater than 65504 / 1e-6.
_LEAST_SCALE = 1e-6

_ADVICE = (
    "use dtype='bfloat16' or full precision in optim_wrapper, lower optim_wrapper.optimizer.lr, or "
    'check the images and labels'
)


@HOOKS.register_module()
class LossScaleHook(Hook):
    """Report skipped steps of ``AmpOptimWrapper``; end a run in which the scaler cannot recover.

    In float16 the scaler multiplies the loss, so that small gradients do not become 0. If a gradient
    overflows, it skips the step and halves the scale; after 2000 good steps it doubles the scale. The
    first steps of a run, and single later ones, are skipped. Their ``grad_norm``, and sometimes their
    loss, is infinite or NaN and would hide all others of the window over which mmengine logs the mean.
    After the next good step this hook takes them out of the window and logs how many steps the scaler
    skipped.

    Skipped steps change no weight, so the next batches fail likewise, unless the scale helps. It cannot
    help if it is below 1e-6, or if it is constant (``loss_scale=512.0``). The run then ends.

    Args:
        patience: Number of successive skipped steps after which a warning appears, or the run ends.

    Raises:
        InputError: The scaler has skipped all steps, and no scale helps.
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

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int = 0,  # noqa: ARG002
        data_batch: Any = None,  # noqa: ARG002
        outputs: Any = None,
    ) -> None:
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is None or not runner.optim_wrapper.should_update():
            return
        if not self._stepped:
            self._skipped += 1
            if self._skipped % self.patience == 0:
                self._report(runner, scaler.get_scale(), outputs)
        elif self._skipped:
            runner.logger.info(
                f'The loss scaler skipped {self._skipped} steps before iteration {runner.iter + 1}, '
                f'because gradients overflowed; the scale is now {scaler.get_scale():g}. This is '
                'normal in the first steps and once in about 2000 steps.'
            )
            self._skipped = 0
            for key, scalars in runner.message_hub.log_scalars.items():
                if key.startswith('train/'):
                    values, counts = scalars.data
                    overflow = ~np.isfinite(values)
                    values[overflow] = counts[overflow] = 0
        self._stepped = False

    def _report(self, runner: Any, scale: float, outputs: Any) -> None:
        cause = ' and '.join(non_finite_losses(outputs)) or 'gradients overflow'
        line = (
            f'loss scaler has skipped {self._skipped} successive steps, because {cause}; the scale is '
            f'{scale:.3g}'
        )
        constant = getattr(runner.optim_wrapper, '_scale_update_param', None) is not None
        if constant or scale < _LEAST_SCALE:
            raise diverged(runner, f'the {line}', advice=_ADVICE)
        runner.logger.warning(f'The {line}; {_ADVICE}.')

    def after_train(self, runner: Any) -> None:
        if self._skipped:
            runner.logger.warning(f'The loss scaler skipped the last {self._skipped} steps.')
