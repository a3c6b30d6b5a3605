"""The schedules of a run, found by stepping mmengine's own objects."""

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
from .run_model import unwrapped

_INITIAL = 'initial_'
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Group:
    """Parameters with the same settings; learning rate and weight decay before any schedule."""

    lr: float
    weight_decay: float
    kinds: dict[str, int] = field(default_factory=dict)  # number of weights, biases and norms
    parameters: int = 0


@dataclass
class Point:
    """The settings at the start of one iteration, by group."""

    iteration: int  # from 0
    lr: list[float]
    weight_decay: list[float]
    ema: float | None  # momentum; None without EMA or before it starts


def parameter_groups(runner: Any) -> list[Group]:
    """Merge the parameter groups of a run that have equal settings, in order of appearance.

    Raises:
        InputError: The model has several optimizers.
    """
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None:
        raise InputError('--dry-run: the run has several optimizers; expected a single one')
    kinds = {}
    for module in unwrapped(runner.model).modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = 'biases' if name == 'bias' else 'weights'
            kinds[id(parameter)] = 'norms' if isinstance(module, _NORMS) else kind
    groups: dict[str, Group] = {}
    for raw in optimizer.param_groups:
        settings = _initial_settings(raw)
        new = Group(settings['lr'], settings.get('weight_decay', 0.0))
        group = groups.setdefault(_key(settings), new)
        for parameter in raw['params']:
            kind = kinds.get(id(parameter), 'weights')
            group.kinds[kind] = group.kinds.get(kind, 0) + 1
            group.parameters += parameter.numel()
    return list(groups.values())


def follow(runner: Any, iterations: Iterable[int]) -> list[Point]:
    """Find the settings of a prepared run at some iterations, counted from 0; the run is unchanged.

    mmengine's hook steps new schedulers through every iteration and epoch. They act on one small
    parameter for each group of :func:`parameter_groups`, because a step over a thousand tensors is
    slow. A schedule that depends on the validation (ReduceOnPlateau) stays at its start.
    """
    fake = _stand_in(runner)
    hook = next((h for h in runner.hooks if isinstance(h, ParamSchedulerHook)), Hook())
    # A loop that counts iterations is one epoch to mmengine.
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(runner.train_dataloader) if by_epoch else runner.max_iters
    points, done = [], 0
    for iteration in sorted({i for i in iterations if 0 <= i < runner.max_iters}):
        for step in range(done, iteration):
            hook.after_train_iter(fake, step)
            if (step + 1) % length == 0:
                hook.after_train_epoch(fake)
        done = iteration
        groups = fake.optim_wrapper.optimizer.param_groups
        rates = [float(group['lr']) for group in groups]
        decays = [float(group.get('weight_decay', 0.0)) for group in groups]
        points.append(Point(iteration, rates, decays, ema_momentum(runner, iteration)))
    return points


def ema_momentum(runner: Any, iteration: int) -> float | None:
    """Ask the average of a run for the share of the new weights after an iteration."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
    if hook is None:
        return None
    if hook.enabled_by_epoch:
        started = iteration // max(1, len(runner.train_dataloader)) + 1 >= hook.begin_epoch
    else:
        started = iteration >= hook.begin_iter
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


def _stand_in(runner: Any) -> SimpleNamespace:
    """Build what mmengine's hook steps: new schedulers on one small parameter for each group."""
    optimizer = copy.copy(runner.optim_wrapper.optimizer)
    settings = {_key(s): s for s in map(_initial_settings, optimizer.param_groups)}
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
        # Schedulers expect an update of the optimizer before each step, and warn without it.
        fake.optim_wrapper.step()
    return fake


def _initial_settings(group: dict) -> dict:
    settings = {k: v for k, v in group.items() if k != 'params' and not k.startswith(_INITIAL)}
    initial = {k.removeprefix(_INITIAL): v for k, v in group.items() if k.startswith(_INITIAL)}
    return settings | initial


def _key(settings: dict) -> str:
    return str(sorted(settings.items()))
