"""A check of the checkpoint before its weights go into the model."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from ..errors import InputError
from ..registry import HOOKS
from ..training.run_model import unwrapped
from ..weights.fit import check_matches, fit_state
from ..weights.names import form_of
from ..weights.reading import state_dict_of

_FORMS = {'train': 'training', 'deploy': 'deploy'}


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Ends a run whose checkpoint is of another size, form or task.

    mmengine loads without strictness and logs what did not fit, so that such a run evaluates or
    resumes a net that is mostly random. Files of other namings, of a bare backbone, or of weights
    without the dict around them are put into the form that mmengine and its EMA hook take.

    Weights in the other form are fused or lifted.

    Args:
        whole: Whether all of the model must fit, as for a test or a resume. Otherwise only its
            backbone must, if it is a MobileOne: a fine-tuned model has a head of its own.
        resume: Whether the run continues: its optimizer knows the parameters of one form only.
    """

    priority = 'VERY_HIGH'

    def __init__(self, whole: bool = True, resume: bool = False) -> None:
        self.whole = whole
        self.resume = resume

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        model: Any = unwrapped(runner.model)
        source = str(runner._load_from)
        if self.resume:
            self._check_form(model, checkpoint, source)
        self._put_right(model, checkpoint, source)
        if self.whole:
            check_matches(model, checkpoint, source)
        elif hasattr(model, 'backbone') and form_of(model.backbone.state_dict()):
            # Parts that are allowed to be missing allow the file to have a head, too.
            check_matches(model.backbone, checkpoint, source, allow_missing=('head.',))

    def _check_form(self, model: Any, checkpoint: dict, source: str) -> None:
        file, own = form_of(state_dict_of(checkpoint, source)), form_of(model.state_dict())
        if file and own and file != own:
            raise InputError(
                f"--resume: '{source}' is in {_FORMS[file]} form, the model in {_FORMS[own]} form; a "
                'run continues in the form that it began in (start anew from the weights with '
                '--cfg-options load_from=...)'
            )

    def _put_right(self, model: Any, checkpoint: dict, source: str) -> None:
        state = state_dict_of(checkpoint, source)
        fitted = fit_state(model, state, f"checkpoint '{source}'")
        if 'state_dict' not in checkpoint:
            checkpoint.clear()
            checkpoint['state_dict'] = fitted
        elif fitted.keys() != state.keys():
            checkpoint['state_dict'] = fitted
