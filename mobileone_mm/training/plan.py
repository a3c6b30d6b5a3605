"""The plan of a run: sizes, schedules, phases, and a few measured steps."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook, ParamSchedulerHook
from mmengine.runner import EpochBasedTrainLoop

from ..benchmark.train_step import StepCost, measure_train_step
from ..errors import InputError
from ..models.count import count_macs
from ..reparam import reparameterize_model
from .param_groups import NORMS
from .run_model import unwrapped

_CURVE = 400  # points of the drawing


@dataclass
class Group:
    """Parameters with the same settings of the optimizer before any schedule."""

    settings: dict[str, Any]
    kinds: dict[str, int] = field(default_factory=dict)  # number of weights, biases and norms
    parameters: int = 0


@dataclass
class Point:
    """The settings at the start of one iteration, by group."""

    iteration: int  # from 0
    lr: list[float]
    weight_decay: list[float]
    ema: float | None  # momentum; None without EMA or before it starts


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
        """Return the phase in force at an iteration; None without a curriculum."""
        return next((phase for first, phase in reversed(self.phases) if first <= iteration), None)


def make_plan(runner: Any, curriculum: Any = None) -> Plan:
    """Make the plan of a Runner, which can train no more, with its CurriculumHook, if any."""
    model, loader = unwrapped(runner.model), runner.train_dataloader
    groups = parameter_groups(runner)
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(loader) if by_epoch else runner.max_iters
    phases = []
    if curriculum:
        begins = (begin * length for begin in curriculum.begins(runner.max_epochs))
        phases = list(zip(begins, curriculum.phases, strict=True))
    deployed = reparameterize_model(copy.deepcopy(model).eval(), inplace=True)
    measures = list(_measures(runner, curriculum, [first for first, _ in phases] or [0], deployed))
    last = runner.max_iters - 1
    unit = length if by_epoch else 1
    quarters = {runner.max_iters * part // 4 // unit * unit for part in range(4)}
    chosen = {*quarters, *(first for first, _ in phases), last}
    steps = chosen | {last * step // _CURVE for step in range(_CURVE + 1)}
    curve = follow(runner, groups, length, steps)
    chosen.add(max(curve, key=lambda point: point.lr[0]).iteration)  # the end of a warm-up
    size = loader.batch_size or loader.batch_sampler.batch_size
    return Plan(
        parameters=sum(p.numel() for p in model.parameters()),
        parameters_deploy=sum(p.numel() for p in deployed.parameters()),
        samples=len(loader.dataset),
        batch=(get_world_size(), size, runner.optim_wrapper._accumulative_counts),
        length=length,
        iterations=runner.max_iters,
        epochs=runner.max_epochs if by_epoch else None,
        groups=groups,
        points=[point for point in curve if point.iteration in chosen],
        curve=curve,
        phases=phases,
        measures=measures,
        device=_device_name(next(model.parameters()).device),
    )


def _device_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{device.type}, {torch.get_num_threads()} threads'


def _measures(runner: Any, curriculum: Any, firsts: list[int], deployed: Any) -> Iterator[Measure]:
    averages = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    updates = [partial(average.after_train_iter, runner) for average in averages]
    alone = copy.deepcopy(unwrapped(runner.model)).eval()
    for number, first in enumerate(firsts):
        end = [*firsts, runner.max_iters][number + 1]
        if curriculum:
            curriculum.use_phase(number)
        parts = runner.model, runner.optim_wrapper, runner.train_dataloader
        cost = measure_train_step(*parts, updates)
        yield Measure(cost, end - first, *(_macs(model, cost.size) for model in (alone, deployed)))


def _macs(model: Any, size: tuple[int, int]) -> int | None:
    image = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    try:
        return count_macs(lambda: model(image, mode='tensor'))
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # the model does not run without its samples


def parameter_groups(runner: Any) -> list[Group]:
    """Merge the parameter groups of a run that have equal settings, in order of appearance."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is None:
        raise InputError('--dry-run: the run has several optimizers; expected a single one')
    kinds = {}
    for module in unwrapped(runner.model).modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = 'biases' if name == 'bias' else 'weights'
            kinds[id(parameter)] = 'norms' if isinstance(module, NORMS) else kind
    groups: dict[str, Group] = {}
    for raw in optimizer.param_groups:
        settings = {key: value for key, value in raw.items() if key != 'params'}
        for key in [key for key in settings if key.startswith('initial_')]:  # set by the schedulers
            settings[key.removeprefix('initial_')] = settings.pop(key)
        group = groups.setdefault(str(sorted(settings.items())), Group(settings))
        for parameter in raw['params']:
            kind = kinds.get(id(parameter), 'weights')
            group.kinds[kind] = group.kinds.get(kind, 0) + 1
            group.parameters += parameter.numel()
    return list(groups.values())


def follow(runner: Any, groups: list[Group], length: int, iterations: set[int]) -> list[Point]:
    """Step mmengine's schedulers through every iteration and every epoch of ``length`` iterations.

    Returns the settings at some iterations. A schedule that depends on the validation (ReduceOnPlateau)
    stays at its start. The optimizer gets the merged groups, because a step over a thousand is slow.
    """
    settings: list[dict] = [dict(group.settings, params=[]) for group in groups]
    runner.optim_wrapper.optimizer.param_groups = settings
    if (config := runner.cfg.get('param_scheduler')) is not None:
        runner.param_schedulers = runner.build_param_scheduler(copy.deepcopy(config))
        # The measured steps came first; without this the new schedulers warn that none was made.
        runner.optim_wrapper._global_step = 0
    hook = next((h for h in runner.hooks if isinstance(h, ParamSchedulerHook)), Hook())
    points, done = [], 0
    for iteration in sorted(iterations):
        for step in range(done, iteration):
            hook.after_train_iter(runner, step)
            if (step + 1) % length == 0:
                hook.after_train_epoch(runner)
        done = iteration
        rates = [float(group['lr']) for group in settings]
        decays = [float(group.get('weight_decay', 0.0)) for group in settings]
        points.append(Point(iteration, rates, decays, ema_momentum(runner, iteration)))
    return points


def ema_momentum(runner: Any, iteration: int) -> float | None:
    """Ask the average of a run, if it has started, for the share of the new weights."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
    if hook is None:
        return None
    first = hook.begin_iter - 1  # the iteration of the first update, which copies the weights
    if hook.enabled_by_epoch:
        first = (hook.begin_epoch - 1) * len(runner.train_dataloader)
    if iteration <= first:
        return None
    average: Any = hook.ema_model
    before = average.steps.clone()
    old, new = torch.tensor([0.0, 1.0], dtype=torch.float64)
    average.steps.fill_(max(1, iteration - max(0, first)))
    average.avg_func(old, new, int(average.steps))
    average.steps.copy_(before)
    return float(old)
