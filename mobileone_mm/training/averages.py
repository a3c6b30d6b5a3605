"""Averaged weights and fused models: one form for both, or an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..errors import InputError
from ..registry import HOOKS
from ..reparam import Reparameterizable
from ..weights.names import form_of

_FORMS = {'train': 'training form', 'deploy': 'deploy form', None: 'another structure'}
_REMEDY = (
    'fuse after the run (tools/switch_to_deploy.py), evaluate in deploy form by '
    'mobileone_mm.DeployEvalHook, or train with deploy=True from the first iteration'
)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for several devices."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def check_averages(runner: Any) -> None:
    """Raise unless every averaged model of a run has the structure of its source.

    mmengine's EMAHook swaps parameters with its average *by position*, and mmdet's MeanTeacherHook
    averages by position: with one of the two fused, weights would land in tensors of other layers.

    Args:
        runner: The Runner; its hooks are searched for averages.

    Raises:
        InputError: A source and its average are of different form, or the average was fused after
            its hook had noted which tensors to update.
    """
    for name, source, average in _pairs(runner):
        _check_pair(name, source, average)


@HOOKS.register_module()
class AverageCheckHook(Hook):
    """Ends a run in which a model and its average are of different form.

    The project's Runner has it by default. In a run with mmengine's EMAHook (any of its averages) or
    mmdet's MeanTeacherHook it looks before everything that touches both: at the start, after every
    iteration, before a validation, a test and a saved checkpoint, and at the checkpoint that is
    loaded.

    Raises:
        InputError: See :func:`check_averages`; or a checkpoint to resume from holds an average of
            another form, or with other tensors, than its weights.
    """

    # After CheckpointCheckHook, which puts names right, before any EMAHook.
    priority = 'HIGH'

    def __init__(self) -> None:
        self._blocks: list[tuple[Any, bool]] | None = None

    def before_train(self, runner: Any) -> None:
        check_averages(runner)
        self._blocks = [
            (block, block.deploy)
            for _, *models in _pairs(runner)
            for model in models
            for block in model.modules()
            if isinstance(block, Reparameterizable)
        ]

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        # Names are compared only when some block has changed its form: this runs every iteration.
        if any(block.deploy != deploy for block, deploy in self._blocks or ()):
            self.before_train(runner)

    def before_val_epoch(self, runner: Any) -> None:
        check_averages(runner)

    def before_test_epoch(self, runner: Any) -> None:
        check_averages(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:  # noqa: ARG002
        check_averages(runner)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        average = checkpoint.get('ema_state_dict')
        if not isinstance(average, Mapping) or not any(_ema_hooks(runner)):
            return
        problem = _file_problem(unwrapped(runner.model), checkpoint['state_dict'], average)
        if problem is None:
            return
        if runner._resume:
            raise InputError(
                f"--resume: '{runner._load_from}': {problem}; take a checkpoint that a run of this "
                'config has written, as it is'
            )
        # A new run starts from the averaged weights, which are the `state_dict` of a file.
        del checkpoint['ema_state_dict']
        print_log(f'The raw weights in the checkpoint are left out: {problem}', 'current')


def _pairs(runner: Any) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Name of the hook, source and average, for every average that a run keeps."""
    for hook in _ema_hooks(runner):
        if hasattr(hook, 'ema_model'):  # made before the run
            yield type(hook).__name__, hook.src_model, hook.ema_model
    model = unwrapped(runner.model)
    for hook in runner.hooks:
        kinds = {kind.__name__ for kind in type(hook).__mro__}
        if 'MeanTeacherHook' in kinds and hasattr(model, 'teacher'):
            yield type(hook).__name__, model.student, model.teacher  # type: ignore[misc]


def _ema_hooks(runner: Any) -> Iterator[Any]:
    return (hook for hook in runner.hooks if isinstance(hook, EMAHook))


def _check_pair(name: str, source: nn.Module, average: nn.Module) -> None:
    noted = getattr(average, 'avg_parameters', None)
    average = average.module if noted is not None else average  # type: ignore[assignment]
    shapes = _shapes(source), _shapes(average)
    if shapes[0] != shapes[1]:
        first = next(
            (a or b)[0]
            for a, b in _longest(*shapes)
            if a != b  # type: ignore[index]
        )
        raise InputError(
            f'{name}: the model is in {_form(source)}, its average in {_form(average)} (they differ '
            f"from '{first}' on); one cannot be averaged into the other: {_REMEDY}"
        )
    if noted is not None and not noted.keys() <= average.state_dict().keys():
        raise InputError(
            f'{name}: model and average were fused after the average had been set up, which would '
            f'no longer change; {_REMEDY}'
        )


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tuple(tensor.shape)) for name, tensor in named]


def _longest(first: list, second: list) -> Iterator[tuple[Any, Any]]:
    for index in range(max(len(first), len(second))):
        yield tuple(side[index] if index < len(side) else None for side in (first, second))  # type: ignore[misc]


def _form(model: nn.Module) -> str:
    return _FORMS[form_of(model.state_dict())]


def _file_problem(
    model: nn.Module, state: Mapping[str, Tensor], average: Mapping[str, Tensor]
) -> str | None:
    """Why the raw weights of a file with EMA do not go with its averaged ones, or None."""
    raw = {k.removeprefix('module.'): v for k, v in average.items() if k.startswith('module.')}
    forms = form_of(state), form_of(raw)
    if forms[0] != forms[1]:
        return (
            f"its 'state_dict' is in {_FORMS[forms[0]]}, its 'ema_state_dict' in {_FORMS[forms[1]]}"
        )
    own = form_of(model.state_dict())
    if own != forms[0]:
        return f'it is in {_FORMS[forms[0]]}, the model in {_FORMS[own]}'
    wrong = [
        key for key, value in raw.items() if getattr(state.get(key), 'shape', None) != value.shape
    ]
    if wrong:
        return (
            f"'{wrong[0]}' of its 'ema_state_dict' is missing or of another shape in its "
            "'state_dict'; take a checkpoint that a run has written, as it is"
        )
    return None
