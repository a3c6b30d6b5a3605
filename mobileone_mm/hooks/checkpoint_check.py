"""A check of the checkpoint before its weights go into the model of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from ..errors import InputError
from ..registry import HOOKS
from ..training.run_model import unwrapped
from ..weights.fit import checkpoint_for
from ..weights.names import form_of
from ..weights.unwrap import COUNTERS, read_weights
from .average_check import ema_hooks


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Replaces the weights of a loaded checkpoint by those that fit the model, or ends the run.

    mmengine loads without strictness and logs what did not fit, so that a run with a checkpoint of
    another size, form or task evaluates or resumes a model that is mostly random. This hook passes
    the checkpoint through :func:`~mobileone_mm.weights.fit.checkpoint_for` before mmengine and its
    EMAHook take it.

    Args:
        whole: Whether all of the model must fit, as for a test or a resumed run. Otherwise only its
            MobileOne must, if it has one: a fine-tuned model has a head of its own.
    """

    priority = 'VERY_HIGH'

    def __init__(self, whole: bool = True) -> None:
        self.whole = whole

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model: Any = unwrapped(runner.model)
        source = str(runner._load_from)
        weights = read_weights(checkpoint, source)
        if runner._resume:  # its optimizer knows the parameters of one form only
            file, own = weights.form, form_of(model.state_dict())
            if file and own and file != own:
                names = dict(train='training', deploy='deploy')
                raise InputError(
                    f"--resume: '{source}' is in {names[file]} form, the model in {names[own]} form; "
                    'a run continues in the form that it began in (start a new run from weights with '
                    '--cfg-options load_from=...)'
                )
            if isinstance(checkpoint.get('ema_state_dict'), Mapping) and ema_hooks(runner):
                _rename_raw_weights(model, checkpoint)
        fitted = checkpoint_for(model, weights, 'model' if self.whole else 'backbone')
        if not isinstance(checkpoint.get('state_dict'), Mapping):
            checkpoint.clear()  # mmengine's Runner did not write it
        checkpoint['state_dict'] = fitted.state


def _rename_raw_weights(model: Any, checkpoint: dict) -> None:
    """Give the raw weights of a run with EMA the names of the model."""
    content = checkpoint['ema_state_dict']
    raw = {key: value for key, value in content.items() if key not in COUNTERS}
    if not {key.removeprefix('module.') for key in raw} <= model.state_dict().keys():
        fitted = checkpoint_for(model, raw, 'nothing').state
        counters = {key: content[key] for key in content if key in COUNTERS}
        renamed = {f'module.{key}': value for key, value in fitted.items()}
        checkpoint['ema_state_dict'] = {**counters, **renamed}
