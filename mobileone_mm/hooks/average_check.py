"""A hook that ends a run in which a model and its average have different forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from ..errors import InputError
from ..registry import HOOKS
from ..reparam import Reparameterizable
from ..training.averages import average_mismatch, averaged_models, check_averages, ema_hooks
from ..training.run_model import unwrapped


@HOOKS.register_module()
class AverageCheckHook(Hook):
    """End a run in which a model and its average have different forms.

    The Runner of this package has the hook by default. It checks mmengine's EMAHook and mmdet's
    MeanTeacherHook before everything that touches both models: at the start, after every iteration,
    before a validation, a test and a saved checkpoint, and when a checkpoint is loaded. A run that
    resumes from a checkpoint with EMA but has no EMAHook gets a warning.

    Raises:
        InputError: See :func:`~mobileone_mm.training.averages.check_averages`; or the checkpoint to
            resume from holds raw weights that do not fit its averaged ones.
    """

    # After CheckpointCheckHook, which corrects names, and before any EMAHook.
    priority = 'HIGH'

    def __init__(self) -> None:
        self._forms: list[tuple[Any, bool]] = []

    def before_train(self, runner: Any) -> None:
        check_averages(runner)
        self._forms = [
            (block, block.deploy)
            for _, *models in averaged_models(runner)
            for model in models
            for block in model.modules()
            if isinstance(block, Reparameterizable)
        ]

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        # Every iteration runs this, so tensors are compared only when a block has changed its form.
        if any(block.deploy != deploy for block, deploy in self._forms):
            self.before_train(runner)

    def before_val_epoch(self, runner: Any, **_: Any) -> None:
        check_averages(runner)

    before_test_epoch = before_save_checkpoint = before_val_epoch

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        average = checkpoint.get('ema_state_dict')
        if not isinstance(average, Mapping):
            return
        if not ema_hooks(runner):
            if runner._resume:
                runner.logger.warning(
                    f"--resume: '{runner._load_from}' comes from a run with EMAHook, this run has "
                    'none: it continues from the averaged weights, with the optimizer state of the '
                    'raw ones; add EMAHook to custom_hooks to continue the same run'
                )
            return
        problem = average_mismatch(unwrapped(runner.model), checkpoint['state_dict'], average)
        if problem is None:
            return
        if runner._resume:
            raise InputError(
                f"--resume: '{runner._load_from}': {problem}; use a checkpoint of a run with this "
                'config, unchanged'
            )
        # A new run starts from the averaged weights, which are the file's `state_dict`.
        del checkpoint['ema_state_dict']
        runner.logger.info(f'The raw weights in the checkpoint are not loaded: {problem}')
