"""A hook that ends a run in which a model and its average (EMA, mean teacher) differ in form."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from mmengine.hooks import EMAHook, Hook
from torch import nn

from ..errors import InputError
from ..registry import HOOKS
from ..reparam import Reparameterizable
from ..training.run_model import unwrapped
from ..weights.names import form_of

_REMEDY = (
    'fuse after the run (tools/switch_to_deploy.py), evaluate in deploy form with '
    'mobileone_mm.DeployEvalHook, or train with deploy=True from the first iteration'
)


@HOOKS.register_module()
class AverageCheckHook(Hook):
    """End a run in which a model and its average have different forms.

    The Runner of this package has the hook by default. It checks mmengine's EMAHook and mmdet's
    MeanTeacherHook before everything that touches both models: at the start, after every iteration,
    before a validation, a test and a saved checkpoint.
    """

    priority = 'HIGH'  # before any EMAHook, which exchanges the two

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


def check_averages(runner: Any) -> None:
    """Check that every averaged model of a Runner has the structure of its source.

    mmengine's EMAHook exchanges parameters with its average by position, and mmdet's MeanTeacherHook
    averages by position. If only one of the two models is fused, weights get into tensors of other
    layers.
    """
    for name, source, average in _averaged_models(runner):
        updated = getattr(average, 'avg_parameters', None)
        copied: Any = average.module if updated is not None else average
        own, other = (
            [(key, t.shape) for key, t in (*model.named_parameters(), *model.named_buffers())]
            for model in (source, copied)
        )
        if own != other:
            names = {'train': 'training form', 'deploy': 'deploy form', None: 'another structure'}
            forms = [names[form_of(model.state_dict())] for model in (source, copied)]
            first = next((a or b)[0] for a, b in zip_longest(own, other) if a != b)
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
