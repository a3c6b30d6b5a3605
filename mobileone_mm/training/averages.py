"""Checks that a model and its average (EMA, mean teacher) have the same form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from mmengine.hooks import EMAHook
from torch import Tensor, nn

from ..errors import InputError
from ..weights.names import form_of
from .run_model import unwrapped

_FORMS = {'train': 'training form', 'deploy': 'deploy form', None: 'another structure'}
_REMEDY = (
    'fuse after the run (tools/switch_to_deploy.py), evaluate in deploy form with '
    'mobileone_mm.DeployEvalHook, or train with deploy=True from the first iteration'
)


def check_averages(runner: Any) -> None:
    """Check that every averaged model of a run has the structure of its source.

    mmengine's EMAHook exchanges parameters with its average by position, and mmdet's MeanTeacherHook
    averages by position. If only one of the two models is fused, weights get into tensors of other
    layers.

    Args:
        runner: The Runner; its hooks are searched for averages.

    Raises:
        InputError: A source and its average have different forms, or the average was fused after its
            hook had stored which tensors to update.
    """
    for name, source, average in averaged_models(runner):
        _check_pair(name, source, average)


def averaged_models(runner: Any) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield the name of the hook, the source and the average, for every average of a run."""
    for hook in ema_hooks(runner):
        if hasattr(hook, 'ema_model'):  # EMAHook builds it in before_run
            yield type(hook).__name__, hook.src_model, hook.ema_model
    model = unwrapped(runner.model)
    for hook in runner.hooks:
        kinds = {kind.__name__ for kind in type(hook).__mro__}
        if 'MeanTeacherHook' in kinds and hasattr(model, 'teacher'):
            yield type(hook).__name__, model.student, model.teacher  # type: ignore[misc]


def ema_hooks(runner: Any) -> list[Any]:
    """Return the EMA hooks of a run."""
    return [hook for hook in runner.hooks if isinstance(hook, EMAHook)]


def average_mismatch(
    model: nn.Module, state: Mapping[str, Tensor], average: Mapping[str, Tensor]
) -> str | None:
    """Return why the raw weights of a checkpoint with EMA do not fit its averaged ones, or None.

    Args:
        model: The model of the run, without wrappers.
        state: ``state_dict`` of the file: the averaged weights.
        average: ``ema_state_dict`` of the file: the raw weights under ``module.``.
    """
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


def _check_pair(name: str, source: nn.Module, average: nn.Module) -> None:
    updated = getattr(average, 'avg_parameters', None)
    average = average.module if updated is not None else average  # type: ignore[assignment]
    for pair in zip_longest(_shapes(source), _shapes(average)):
        if pair[0] != pair[1]:
            first = (pair[0] or pair[1])[0]  # type: ignore[index]
            raise InputError(
                f'{name}: the model is in {_form(source)}, its average in {_form(average)} (the first '
                f"difference is '{first}'); one cannot be averaged into the other: {_REMEDY}"
            )
    if updated is not None and not updated.keys() <= average.state_dict().keys():
        raise InputError(
            f'{name}: model and average were fused after the average was set up, so the average '
            f'would no longer change; {_REMEDY}'
        )


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in named]


def _form(model: nn.Module) -> str:
    return _FORMS[form_of(model.state_dict())]
