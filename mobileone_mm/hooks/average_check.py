"""A hook that ends a run in which a model and its average (EMA, mean teacher) differ in form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from mmengine.hooks import EMAHook, Hook
from torch import Tensor, nn

from ..errors import InputError
from ..registry import HOOKS
from ..reparam import Reparameterizable
from ..training.run_model import unwrapped
from ..weights.names import form_of

_FORMS = {'train': 'training form', 'deploy': 'deploy form', None: 'another structure'}
_REMEDY = (
    'fuse after the run (tools/switch_to_deploy.py), evaluate in deploy form with '
    'mobileone_mm.DeployEvalHook, or train with deploy=True from the first iteration'
)


@HOOKS.register_module()
class AverageCheckHook(Hook):
    """End a run in which a model and its average have different forms.

    The Runner of this package has the hook by default. It checks mmengine's EMAHook and mmdet's
    MeanTeacherHook before everything that touches both models: at the start, after every iteration,
    before a validation, a test and a saved checkpoint, and when a checkpoint is loaded. A run that
    resumes from a checkpoint with EMA but has no EMAHook gets a warning.

    Raises:
        InputError: See :func:`check_averages`; or the checkpoint to resume from holds raw weights that
            do not fit its averaged ones.
    """

    # After CheckpointCheckHook, which corrects names, and before any EMAHook.
    priority = 'HIGH'

    def __init__(self) -> None:
        self._forms: list[tuple[Any, bool]] = []

    def before_train(self, runner: Any) -> None:
        check_averages(runner)
        self._forms = [
            (block, block.deploy)
            for _, *models in _averaged_models(runner)
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
        problem = _mismatch(unwrapped(runner.model), checkpoint['state_dict'], average)
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


def check_averages(runner: Any) -> None:
    """Check that every averaged model of a Runner has the structure of its source.

    mmengine's EMAHook exchanges parameters with its average by position, and mmdet's MeanTeacherHook
    averages by position. If only one of the two models is fused, weights get into tensors of other
    layers.

    Raises:
        InputError: A source and its average have different forms, or the average was fused after its
            hook had stored which tensors to update.
    """
    for name, source, average in _averaged_models(runner):
        updated = getattr(average, 'avg_parameters', None)
        copied: Any = average.module if updated is not None else average
        for pair in zip_longest(_shapes(source), _shapes(copied)):
            if pair[0] != pair[1]:
                forms = [_FORMS[form_of(model.state_dict())] for model in (source, copied)]
                first = (pair[0] or pair[1])[0]  # type: ignore[index]
                raise InputError(
                    f'{name}: the model is in {forms[0]}, its average in {forms[1]} (the first '
                    f"difference is '{first}'); one cannot be averaged into the other: {_REMEDY}"
                )
        if updated is not None and not updated.keys() <= copied.state_dict().keys():
            raise InputError(
                f'{name}: model and average were fused after the average was set up, so the average '
                f'would no longer change; {_REMEDY}'
            )


def ema_hooks(runner: Any) -> list[Any]:
    """Return the EMA hooks of a run."""
    return [hook for hook in runner.hooks if isinstance(hook, EMAHook)]


def _averaged_models(runner: Any) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield the name of the hook, the source and the average, for every average of a run."""
    for hook in ema_hooks(runner):
        if hasattr(hook, 'ema_model'):  # EMAHook builds it in before_run
            yield type(hook).__name__, hook.src_model, hook.ema_model
    model: Any = unwrapped(runner.model)
    for hook in runner.hooks:
        kinds = {kind.__name__ for kind in type(hook).__mro__}
        if 'MeanTeacherHook' in kinds and hasattr(model, 'teacher'):
            yield type(hook).__name__, model.student, model.teacher


def _mismatch(
    model: nn.Module, state: Mapping[str, Tensor], average: Mapping[str, Tensor]
) -> str | None:
    """Return why the raw weights of a checkpoint (``average``) do not fit its averaged ones."""
    raw = {k.removeprefix('module.'): v for k, v in average.items() if k.startswith('module.')}
    form, raw_form, own = form_of(state), form_of(raw), form_of(model.state_dict())
    if form != raw_form:
        return f"its 'state_dict' is in {_FORMS[form]}, its 'ema_state_dict' in {_FORMS[raw_form]}"
    if form != own:
        return f'it is in {_FORMS[form]}, the model in {_FORMS[own]}'
    for key, value in raw.items():
        if getattr(state.get(key), 'shape', None) != value.shape:
            return (
                f"'{key}' of its 'ema_state_dict' is missing in its 'state_dict' or has another "
                'shape there; use a checkpoint as a run wrote it'
            )
    return None


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in named]
