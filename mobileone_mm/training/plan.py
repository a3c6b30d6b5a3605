"""The plan of a run: sizes, schedules, phases, and a few measured steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop

from ..benchmark.macs import count_macs
from ..benchmark.train_step import StepCost, measure_train_step
from ..reparam import reparameterize_model
from .run_model import unwrapped
from .schedules import Group, Point, follow, parameter_groups

_CURVE = 400


@dataclass
class Measure:
    """The measured steps at one size of the images, and the multiply-adds of one image."""

    cost: StepCost
    iterations: int  # of the run at this size
    macs: int | None  # None if the model does not run without its samples
    macs_deploy: int | None


@dataclass
class Plan:
    """What is known about a run before it starts."""

    parameters: int
    parameters_deploy: int  # of the deploy form
    samples: int  # images of an epoch
    batch: tuple[int, int, int]  # processes, images of a batch, batches of a step of the optimizer
    length: int  # iterations of an epoch, or of a run that has no epochs
    iterations: int
    epochs: int | None  # None if the run counts iterations
    groups: list[Group]
    points: list[Point]  # for the table
    curve: list[Point]  # for the drawing
    phases: list[tuple[int, Any]]  # first iteration and description of each phase
    measures: list[Measure]  # one for each phase, or a single one
    device: str

    def phase_at(self, iteration: int) -> Any:
        """The phase in force at an iteration; None without a curriculum."""
        return next((phase for first, phase in reversed(self.phases) if first <= iteration), None)


def make_plan(runner: Any, curriculum: Any = None) -> Plan:
    """Make the plan of a Runner that is about to train; the measured steps change its weights.

    ``curriculum`` is its CurriculumHook, if it has one.
    """
    model, loader = unwrapped(runner.model), runner.train_dataloader
    groups = parameter_groups(runner)
    deployed = reparameterize_model(copy.deepcopy(model).eval(), inplace=True)
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(loader) if by_epoch else runner.max_iters
    phases = []
    if curriculum:
        begins = (begin * length for begin in curriculum.begins(runner.max_epochs))
        phases = list(zip(begins, curriculum.phases, strict=True))
    firsts = [first for first, _ in phases]
    points, curve = _points(runner, length if by_epoch else 1, firsts)
    device = next(model.parameters()).device
    return Plan(
        parameters=sum(p.numel() for p in model.parameters()),
        parameters_deploy=sum(p.numel() for p in deployed.parameters()),
        samples=len(loader.dataset),
        batch=(
            get_world_size(),
            loader.batch_size or loader.batch_sampler.batch_size,
            runner.optim_wrapper._accumulative_counts,
        ),
        length=length,
        iterations=runner.max_iters,
        epochs=runner.max_epochs if by_epoch else None,
        groups=groups,
        points=points,
        curve=curve,
        phases=phases,
        measures=list(_measures(runner, curriculum, firsts, deployed)),
        device=(
            torch.cuda.get_device_name(device)
            if device.type == 'cuda'
            else f'{device.type}, {torch.get_num_threads()} threads'
        ),
    )


def _points(runner: Any, unit: int, firsts: list[int]) -> tuple[list[Point], list[Point]]:
    """Settings for the table (quarters, phases, peak, end) and for the drawing."""
    last = runner.max_iters - 1
    quarters = {runner.max_iters * part // 4 // unit * unit for part in range(4)}
    chosen = {*quarters, *firsts, last}
    curve = follow(runner, chosen | {last * step // _CURVE for step in range(_CURVE + 1)})
    chosen.add(max(curve, key=lambda point: point.lr[0]).iteration)  # the end of a warm-up
    return [point for point in curve if point.iteration in chosen], curve


def _measures(
    runner: Any, curriculum: Any, firsts: Sequence[int], deployed: Any
) -> Iterator[Measure]:
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    updates = [partial(average.after_train_iter, runner) for average in averages]
    alone = copy.deepcopy(unwrapped(runner.model)).eval()
    for number, (first, end) in enumerate(
        zip(firsts or [0], [*firsts[1:], runner.max_iters], strict=True)
    ):
        if curriculum:
            curriculum.use_phase(number)
        batches = runner.train_dataloader
        cost = measure_train_step(runner.model, runner.optim_wrapper, batches, updates)
        yield Measure(cost, end - first, *(_macs(model, cost.size) for model in (alone, deployed)))


def _macs(model: Any, size: tuple[int, int]) -> int | None:
    image = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    try:
        return count_macs(lambda: model(image, mode='tensor'))
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # the model does not run without its samples
