"""A check of the checkpoint before its weights go into the model of a run."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from ..errors import InputError
from ..registry import HOOKS
from ..training.run_model import unwrapped
from ..weights.fit import Require, checkpoint_for
from ..weights.names import form_of
from ..weights.unwrap import COUNTERS, read_weights
from .average_check import ema_hooks


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Replaces the weights of a loaded checkpoint by those that fit the model, or ends the run.

    mmengine loads without strictness and logs what did not fit, so that a run with a checkpoint of
    another size, form or task evaluates or resumes a model that is mostly random. This hook passes
    the checkpoint, and the raw weights of a resumed run with EMA, through
    :func:`~mobileone_mm.weights.fit.checkpoint_for` before mmengine and its EMAHook take them.

    Args:
        whole: Whether all of the model must fit, as for a test or a resumed run. Otherwise only its
            MobileOne must, if it has one: a fine-tuned model has a head of its own.
    """

    priority = 'VERY_HIGH'

    def __init__(self, whole: bool = True) -> None:
        self._require: Require = 'model' if whole else 'backbone'

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model, source = unwrapped(runner.model), str(runner._load_from)
        own, weights = form_of(model.state_dict()), read_weights(checkpoint, source)
        # The optimizer of a resumed run knows the parameters of one form only.
        if runner._resume and own and weights.form and own != weights.form:
            names = dict(train='training', deploy='deploy')
            raise InputError(
                f"--resume: '{source}' is in {names[weights.form]} form, the model in {names[own]} "
                'form; a run continues in the form that it began in (start a new run from weights with '
                '--cfg-options load_from=...)'
            )
        fitted = checkpoint_for(model, weights, self._require)
        if runner._resume and 'optimizer' not in checkpoint:
            runner.logger.warning(
                f"--resume: '{source}' has no optimizer state, like each best_*.pth: momentum and "
                'schedules start from the beginning; give an epoch_*.pth or iter_*.pth to continue the '
                'same run'
            )
        if not isinstance(checkpoint.get('state_dict'), Mapping):
            checkpoint.clear()  # mmengine's Runner did not write it
        checkpoint['state_dict'] = fitted.state
        if self._require == 'backbone':
            # A new run starts from the averages. mmpretrain's EMAHook would exchange them.
            checkpoint.pop('ema_state_dict', None)
        if not isinstance(checkpoint.get('ema_state_dict'), Mapping):
            if runner._resume and ema_hooks(runner):
                runner.logger.warning(
                    f"--resume: '{source}' comes from a run without EMAHook; the average starts from "
                    'its weights'
                )
            return
        if ema_hooks(runner):
            self._fit_raw_weights(runner, checkpoint, own)
        elif runner._resume:
            runner.logger.warning(
                f"--resume: '{source}' comes from a run with EMAHook, this run has none: it continues "
                'from the averaged weights, with the optimizer state of the raw ones; add EMAHook to '
                'custom_hooks to continue the same run'
            )

    def _fit_raw_weights(self, runner: Any, checkpoint: dict, form: str | None) -> None:
        """Give the raw weights of a run with EMA, in ``ema_state_dict``, the names of the model."""
        content = checkpoint['ema_state_dict']
        raw = {key: value for key, value in content.items() if key not in COUNTERS}
        weights = read_weights(raw, f'{runner._load_from}: ema_state_dict')
        try:
            fitted = checkpoint_for(unwrapped(runner.model), weights, self._require)
            if weights.form != form or fitted.state.keys() != checkpoint['state_dict'].keys():
                raise InputError(
                    f'{weights.name}: is in another form than the model, or has other tensors than '
                    "'state_dict'"
                )
        except InputError as error:
            if runner._resume:
                raise InputError(
                    f'--resume: {error}; use a checkpoint of a run with this config, unchanged'
                ) from error
            del checkpoint['ema_state_dict']
            runner.logger.info(f'Only the averaged weights are loaded: {error}')
            return
        counters = {key: value for key, value in content.items() if key in COUNTERS}
        renamed = {f'module.{key}': value for key, value in fitted.state.items()}
        checkpoint['ema_state_dict'] = {**counters, **renamed}
