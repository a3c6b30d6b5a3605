"""Validation in deploy form during training: faster, and the form that is deployed."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import BaseLoop, autocast
from torch import nn

from ..errors import InputError, ProofError
from ..models.argument_checks import check_integer, check_number
from ..registry import HOOKS
from ..reparam import reparameterize_model
from ..reparam.compare import exact_arithmetic, unit_differences, value_difference
from ..reparam.surgery import unfused_blocks
from ..training.channels_last import restore_format
from ..training.run_model import has_branches, unwrapped
from .average_check import check_averages


@HOOKS.register_module()
class DeployEvalHook(Hook):
    """Validate a fused copy instead of the model, and prove that the metric is the same.

    The hook copies the model at the first batch of every validation, after EMAHook has put the averaged
    weights into it, and puts the original back before any other hook sees the end of the validation.
    Model, optimizer and random state stay those of a run without the hook, bit by bit. With DDP every
    process fuses its own model.

    Args:
        verify: Which validations also run the model in training form and compare: ``'first'`` of
            this process, ``'always'``, or False. The logged results are those of the deploy form.
        batches: Batches of a compared validation on which every fused unit is compared with its
            branches on its own input, in the model's dtype, without TF32 and autocast.
        tolerance: Greatest difference of a unit's output, relative to the output's scale.
        metric_tolerance: Greatest difference of a metric, in its own unit (hosts round to 0.001 of 1
            or 0.01 percent). Raise it for half precision (``val_cfg.fp16``).

    Raises:
        InputError: The model has no unit to fuse or cannot be copied, an average is in another form,
            or the hook runs after EMAHook or CheckpointHook.
        ProofError: The forms differ by more than the tolerances.
    """

    priority = 'HIGHEST'

    def __init__(
        self,
        verify: Literal['first', 'always', False] = 'first',
        batches: int = 2,
        tolerance: float = 1e-4,
        metric_tolerance: float = 0.01,
    ) -> None:
        if verify not in ('first', 'always') and verify is not False:
            raise ValueError(f"verify: got {verify!r}; expected 'first', 'always' or False")
        self.verify = verify
        self.batches = check_integer('batches', batches, 1)
        self.tolerance = check_number('tolerance', tolerance, 0, 1, ends=False)
        self.metric_tolerance = check_number('metric_tolerance', metric_tolerance, 0)
        self._original: Any = None
        self._open = False
        self._reference: _Reference | None = None

    def before_run(self, runner: Any) -> None:
        loop = runner._val_loop
        if not isinstance(loop, BaseLoop):  # testing, or no validation
            return
        for hook in runner.hooks[: runner.hooks.index(self)]:
            if isinstance(hook, (EMAHook, CheckpointHook)):
                raise InputError(
                    f'custom_hooks: DeployEvalHook has the priority {self.priority}, behind '
                    f'{type(hook).__name__}, which would get the fused model; remove its priority'
                )
        kind = type(runner.model)
        if any(base.__name__ == 'FullyShardedDataParallel' for base in kind.__mro__):
            raise InputError(
                f'custom_hooks: DeployEvalHook cannot copy a model inside {kind.__name__}, whose '
                'weights are split over processes; remove the hook'
            )
        if not has_branches(runner.model, 'DeployEvalHook'):
            runner.logger.info('The model is in deploy form; validation has nothing to fuse.')
        run = loop.run

        def guarded(*args: Any, **kwargs: Any) -> Any:
            """Put the model back even if the validation raises."""
            try:
                return run(*args, **kwargs)
            finally:
                self._put_back(runner)
                self._open, self._reference = False, None

        loop.run = guarded

    def before_val_epoch(self, runner: Any) -> None:
        check_averages(runner)
        self._open = True
        if self.verify and has_branches(runner.model, 'DeployEvalHook'):
            self._reference = _Reference(runner.val_loop)
            if self.verify == 'first':
                self.verify = False

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        # mmpretrain's EMAHook repeats the validation on the raw weights after its end; nothing would
        # remove the copy then.
        if not self._open:
            return
        if batch_idx == 0:  # a loop with several passes may change the model between them
            self._put_back(runner)
            self._take_place(runner)
            if self._reference is not None:
                self._reference.passes += 1
        if self._reference is not None and self._original is not None:
            fused = runner.model if batch_idx < self.batches else None
            self._reference.run(self._original, fused, data_batch)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        self._open = False
        self._put_back(runner)
        reference, self._reference = self._reference, None
        # All processes must agree: each has its own BN statistics, which may hold NaN.
        if reference is not None and all(all_gather_object(reference.used)):
            self._judge(runner, reference, metrics or {})

    def _take_place(self, runner: Any) -> None:
        model = unwrapped(runner.model)
        if not has_branches(model, 'DeployEvalHook'):
            return
        fused = copy.deepcopy(model).eval()
        # torch.compile sets a step as an attribute, which is bound to the original.
        vars(fused).pop('val_step', None)
        try:
            reparameterize_model(fused, inplace=True)
            restore_format(fused)
        except ValueError as error:  # NaN or Inf: other hooks decide whether the run ends
            runner.logger.warning(f'Validation is in training form: {error}')
            return
        self._original, runner.model = runner.model, fused

    def _put_back(self, runner: Any) -> None:
        if self._original is not None:
            runner.model, self._original = self._original, None

    def _judge(self, runner: Any, reference: _Reference, metrics: Mapping[str, Any]) -> None:
        found = [worst for worst in all_gather_object(reference.worst) if worst is not None]
        if not found:
            runner.logger.warning('Deploy form not proved: no output of a unit is finite.')
            return
        unit, worst = max(found, key=lambda pair: pair[1])
        if not worst <= self.tolerance:
            raise ProofError(
                f"validation in deploy form: the fused unit '{unit}' differs from its branches by "
                f'{worst:.2g} of the scale of its output (allowed: {self.tolerance:.2g})'
            )
        line = (
            f'Deploy form proved: units differ by at most {worst:.2g} (allowed: {self.tolerance:g})'
        )
        if reference.passes > 1:
            runner.logger.info(f'{line}; the loop gives no metrics to compare.')
            return
        expected = reference.evaluator.evaluate(len(runner.val_dataloader.dataset))
        pairs = [(name, _number(v), _number(metrics.get(name))) for name, v in expected.items()]
        differences = [(value_difference(*values), name, values) for name, *values in pairs]
        difference, name, values = max(differences, default=(0.0, '', []))
        if not difference <= self.metric_tolerance:
            raise ProofError(
                f"validation in deploy form: '{name}' is {values[1]:g}, in training form "
                f'{values[0]:g} (allowed difference: metric_tolerance={self.metric_tolerance:g})'
            )
        runner.logger.info(
            f'{line}, metrics by at most {difference:.2g} (allowed: {self.metric_tolerance:g}).'
        )


class _Reference:
    """The same validation in training form, batch by batch."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.passes = 0
        self.used = False
        self.worst: tuple[str, float] | None = None  # name of a unit and its relative difference
        # A copy, because metrics collect results. COCO's annotations are large and read-only: shared.
        metrics = getattr(loop.evaluator, 'metrics', ())
        kept = [getattr(metric, '_coco_api', None) for metric in metrics]
        self.evaluator = copy.deepcopy(loop.evaluator, {id(api): api for api in kept if api})

    @torch.no_grad()
    def run(self, model: Any, fused: nn.Module | None, data_batch: Any) -> None:
        """Compare each unit with a fused one on its input in full precision, and evaluate a batch.

        The random state stays unchanged. The hosts write their predictions into the batch: copies.
        """
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        kept = partial(torch.random.fork_rng, devices)
        if fused is not None:
            plain = unwrapped(model)
            units = {name: fused.get_submodule(name) for name, _ in unfused_blocks(plain)}
            with kept(), exact_arithmetic(), unit_differences(plain, units) as found:
                model.val_step(copy.deepcopy(data_batch))
            for name, (_, relative) in found.items():
                if self.worst is None or relative > self.worst[1]:
                    self.worst = name, relative
        batch = copy.deepcopy(data_batch)
        with kept(), autocast(enabled=getattr(self.loop, 'fp16', False)):
            outputs = model.val_step(batch)
        last = outputs[-1]
        if hasattr(last, 'keys') and list(last.keys()) == ['loss']:  # as mmengine's loop does
            outputs = outputs[:-1]
        self.evaluator.process(data_samples=outputs, data_batch=batch)
        self.used = True


def _number(value: Any) -> float:
    """Return the value of a metric; NaN for a table."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
