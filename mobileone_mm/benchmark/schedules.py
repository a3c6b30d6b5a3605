"""What a run's schedules will do, found by stepping them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook, ParamSchedulerHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from ..errors import InputError
from ..hooks.curriculum import CurriculumHook
from ..training.run_model import unwrapped

_INITIAL = 'initial_'
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Group:
    """Parameters that the schedules treat alike.

    Attributes:
        lr: Learning rate before any schedule.
        weight_decay: Weight decay before any schedule.
        kinds: Number of tensors by kind: weights, biases, norms.
        parameters: Number of parameters.
    """

    lr: float
    weight_decay: float
    kinds: dict[str, int] = field(default_factory=dict)
    parameters: int = 0


@dataclass
class Point:
    """The settings at the start of one iteration, counted from 0.

    Attributes:
        iteration: The iteration.
        lr: Learning rate of each group.
        weight_decay: Weight decay of each group.
        ema: Momentum of the EMA; None without one, or before it starts.
    """

    iteration: int
    lr: list[float]
    weight_decay: list[float]
    ema: float | None


def parameter_groups(runner: Any) -> list[Group]:
    """The groups of a prepared run, equal ones as one, in the order of their first parameter.

    Raises:
        InputError: The model has several optimizers.
    """
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None:
        raise InputError('--dry-run: the run has several optimizers; it needs a single one')
    kinds = _kinds(unwrapped(runner.model))
    groups: dict[tuple, Group] = {}
    for raw in optimizer.param_groups:
        settings = _before_schedules(raw)
        group = groups.setdefault(
            _key(settings), Group(settings['lr'], settings.get('weight_decay', 0.0))
        )
        for parameter in raw['params']:
            kind = kinds.get(id(parameter), 'weights')
            group.kinds[kind] = group.kinds.get(kind, 0) + 1
            group.parameters += parameter.numel()
    return list(groups.values())


def follow(runner: Any, iterations: Iterable[int]) -> list[Point]:
    """Settings of a prepared run at chosen iterations; nothing of the run is changed.

    mmengine's own hook steps scheduler objects that the Runner has built from the config, through
    every iteration and epoch of the run. They act on one parameter for each group of
    :func:`parameter_groups`: a step costs the same for a group of a thousand tensors. What depends on
    the validation (ReduceOnPlateau) stays where it starts.

    Args:
        runner: A Runner that is about to train.
        iterations: Which iterations, counted from 0.
    """
    wanted = sorted({i for i in iterations if 0 <= i < runner.max_iters})
    fake = _stand_in(runner)
    hook = next((h for h in runner.hooks if isinstance(h, ParamSchedulerHook)), Hook())
    # By iterations the whole run is one epoch, as in the loop.
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(runner.train_dataloader) if by_epoch else runner.max_iters
    points, step = [], 0
    for iteration in wanted:
        for done in range(step, iteration):
            hook.after_train_iter(fake, done)
            if (done + 1) % length == 0:
                hook.after_train_epoch(fake)
        step = iteration
        groups = fake.optim_wrapper.optimizer.param_groups
        points.append(
            Point(
                iteration,
                [float(group['lr']) for group in groups],
                [float(group.get('weight_decay', 0.0)) for group in groups],
                ema_momentum(runner, iteration),
            )
        )
    return points


def ema_momentum(runner: Any, iteration: int) -> float | None:
    """How much of the weights goes into their average after an iteration, asked of the average."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
    if hook is None:
        return None
    length = max(1, len(runner.train_dataloader))
    started = (
        iteration // length + 1 >= hook.begin_epoch
        if hook.enabled_by_epoch
        else iteration >= hook.begin_iter
    )
    if not started:
        return None
    average: Any = hook.ema_model
    before = average.steps.clone()
    old, new = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    try:
        average.steps.fill_(max(1, iteration))
        average.avg_func(old, new, int(average.steps))
    finally:
        average.steps.copy_(before)
    return float(old)


def curriculum(runner: Any) -> CurriculumHook | None:
    """The curriculum of a run, if it has one."""
    return next((hook for hook in runner.hooks if isinstance(hook, CurriculumHook)), None)


def _stand_in(runner: Any) -> SimpleNamespace:
    """What mmengine's hook steps: schedulers anew, on one small parameter for each group."""
    optimizer = copy.copy(runner.optim_wrapper.optimizer)
    settings = {_key(s): s for s in map(_before_schedules, optimizer.param_groups)}
    optimizer.param_groups = [
        dict(copy.deepcopy(group), params=[nn.Parameter(torch.zeros(1))])
        for group in settings.values()
    ]
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers
    fake = SimpleNamespace(optim_wrapper=OptimWrapper(optimizer), param_schedulers=None)
    config = runner.cfg.get('param_scheduler')
    if config is not None:
        runner.optim_wrapper = fake.optim_wrapper
        try:
            fake.param_schedulers = runner.build_param_scheduler(copy.deepcopy(config))
        finally:
            runner.optim_wrapper, runner.param_schedulers = wrapper, schedulers
        # The schedulers expect an update before each of their steps, and warn without.
        fake.optim_wrapper.step()
    return fake


def _before_schedules(group: dict) -> dict:
    settings = {k: v for k, v in group.items() if k != 'params' and not k.startswith(_INITIAL)}
    for key, value in group.items():
        if key.startswith(_INITIAL):
            settings[key.removeprefix(_INITIAL)] = value
    return settings


def _key(settings: dict) -> tuple:
    return tuple(sorted((key, str(value)) for key, value in settings.items()))


def _kinds(model: nn.Module) -> dict[int, str]:
    kinds = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = 'biases' if name == 'bias' else 'weights'
            kinds[id(parameter)] = 'norms' if isinstance(module, _NORMS) else kind
    return kinds
