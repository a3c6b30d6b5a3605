"""The plan of a run, before an hour is spent on it: schedules, sizes, and a few measured steps."""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.flop_counter import FlopCounterMode

from ..benchmark.schedules import Group, Point, curriculum, follow, parameter_groups
from ..errors import InputError
from ..models.channels import check_channels
from ..reparam import reparameterize_model
from ..runs.running import running
from ..training.folders import check_writable
from ..training.launch import is_main_process
from ..training.run_model import unwrapped
from .train import prepare_training

WARM_UP, STEPS = 2, 6
_CURVE = 400


@dataclass
class Measure:
    """Steps that were measured at one size of the images.

    Attributes:
        size: Height and width of a batch.
        iterations: Iterations of the run at this size.
        macs: Multiply-adds of one image, in the model's own form; None if it cannot be run alone.
        macs_deploy: The same in deploy form.
        seconds: Median time from batch to batch.
        waited: The part of it that the batch was waited for.
        memory: Peak in bytes: of the GPU, else of the process; None where that is not known.
    """

    size: tuple[int, int]
    iterations: int
    macs: int | None
    macs_deploy: int | None
    seconds: float
    waited: float
    memory: int | None


@dataclass
class Plan:
    """All that is known about a run before it starts.

    Attributes:
        parameters: Of the model; ``parameters_deploy`` with its units fused.
        samples: Images of an epoch, repeated ones counted.
        batch: Images of one step of the optimizer: processes, size of a batch, batches per step.
        length: Iterations of an epoch; of the run if it is not counted in epochs.
        iterations: Iterations of the run.
        epochs: Epochs of the run; None if it is not counted in epochs.
        groups: Groups of parameters.
        points: Settings at the chosen iterations.
        curve: Settings at many iterations, for drawing.
        phases: First iteration and description of each phase of the curriculum.
        measures: One for each phase, or a single one.
        device: What was measured on.
    """

    parameters: int
    parameters_deploy: int
    samples: int
    batch: tuple[int, int, int]
    length: int
    iterations: int
    epochs: int | None
    groups: list[Group]
    points: list[Point]
    curve: list[Point]
    phases: list[tuple[int, Any]]
    measures: list[Measure]
    device: str

    def phase_at(self, iteration: int) -> Any:
        """The phase in force at an iteration; None without a curriculum."""
        return next((phase for first, phase in reversed(self.phases) if first <= iteration), None)


def dry_run(
    config: str | Path,
    out: str | None = None,
    work_dir: str | None = None,
    resume: str | None = None,
    launcher: str = 'none',
    **flags: Any,
) -> Plan:
    """Show what a training would do, as a table on stdout and as a drawing.

    The run is prepared as by :func:`~mobileone_mm.apis.train.train`, in a temporary folder that is
    removed, up to its first iteration. Weights are changed by the measured steps, in memory only.

    Args:
        config: Path of the config.
        out: The drawing, a ``.png``; by default ``plan.png`` in the work dir.
        work_dir: Folder of the run; nothing else is written there.
        resume: Must be None: the plan is that of the whole run.
        launcher: As for a training; the first process writes.
        **flags: Other arguments of :func:`~mobileone_mm.apis.train.prepare_training`.

    Raises:
        InputError: What would end the training before its first iteration, or the drawing cannot
            be written.
    """
    from ..benchmark.plan_report import draw, report

    if resume is not None:
        raise InputError('--dry-run: shows the plan of the whole run; leave --resume out')
    if out and Path(out).suffix.lower() != '.png':
        raise InputError(f"--dry-run: got '{out}'; the drawing is a .png file")
    prepared = prepare_training(config, launcher=launcher, work_dir=work_dir, **flags)
    cfg = prepared.cfg
    image = Path(out).expanduser() if out else Path(cfg.work_dir, 'plan.png')
    check_writable(image.parent, '--dry-run')
    # A plan needs no weights, and nobody wants its log.
    cfg.load_from, cfg.resume, cfg.log_level = None, False, 'WARNING'
    cfg.visualizer = {**cfg.get('visualizer', dict(type='Visualizer')), 'vis_backends': None}
    with tempfile.TemporaryDirectory(prefix='mobileone_mm_plan_') as folder:
        cfg.work_dir = folder
        hook = _PlanHook()
        try:
            with running(prepared, launcher) as runner:
                check_channels(cfg.model, unwrapped(runner.model))
                runner.register_hook(hook)
                runner.train()
        except _Planned:
            pass
    plan = hook.plan
    if plan is None:
        raise RuntimeError('the run ended before its plan was made')
    if is_main_process():
        draw(plan, image, Path(config).stem)
        print(f'{prepared.table()}\n\n{report(plan, str(config))}\n\nDrawn in {image}')
    return plan


class _Planned(Exception):  # noqa: N818
    """Ends a run whose plan is made."""


class _PlanHook(Hook):
    """Makes the plan when everything is prepared, and ends the run."""

    # Behind the hooks that prepare the training, before RecalibrateHook, which measures the weights.
    priority = 'LOW'
    plan: Plan | None = None

    def before_train(self, runner: Any) -> None:
        self.plan = make_plan(runner)
        raise _Planned


def make_plan(runner: Any) -> Plan:
    """The plan of a Runner that is about to train."""
    model, groups = unwrapped(runner.model), parameter_groups(runner)
    deployed = _deployed(model)
    loader, by_epoch = runner.train_dataloader, isinstance(runner.train_loop, EpochBasedTrainLoop)
    length = len(loader) if by_epoch else runner.max_iters
    hook = curriculum(runner)
    begins = hook.begins(runner.max_epochs) if hook else []
    phases = list(zip((b * length for b in begins), hook.phases if hook else (), strict=True))
    points, curve = _points(runner, length if by_epoch else 1, [first for first, _ in phases])
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
        measures=list(_measures(runner, [first for first, _ in phases], deployed)),
        device=_device_name(model),
    )


def _points(runner: Any, unit: int, firsts: list[int]) -> tuple[list[Point], list[Point]]:
    """Settings at the quarters of a run, where its phases begin and at its end; and for a curve."""
    last = runner.max_iters - 1
    quarters = {runner.max_iters * part // 4 // unit * unit for part in range(4)}
    chosen = {*quarters, *firsts, last}
    curve = follow(runner, chosen | {last * step // _CURVE for step in range(_CURVE + 1)})
    chosen.add(max(curve, key=lambda point: point.lr[0]).iteration)  # the end of a warm-up
    return [point for point in curve if point.iteration in chosen], curve


def _measures(runner: Any, firsts: list[int], deployed: Any) -> Iterator[Measure]:
    hook = curriculum(runner)
    ends = [*firsts[1:], runner.max_iters]
    # The alone-standing copy has the weights from before the steps.
    alone = copy.deepcopy(unwrapped(runner.model)).eval()
    for number, (first, end) in enumerate(zip(firsts or [0], ends, strict=True)):
        if hook:
            hook.use_phase(number)
        size, seconds, waited, memory = _steps(runner)
        macs, macs_deploy = _macs(alone, size), _macs(deployed, size)
        yield Measure(size, end - first, macs, macs_deploy, seconds, waited, memory)


def _steps(runner: Any) -> tuple[tuple[int, int], float, float, int | None]:
    """Train a few steps: size of the batches, time from batch to batch, waiting in it, memory."""
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    cuda = next(runner.model.parameters()).is_cuda
    runner.model.train()
    batches = _endless(runner.train_dataloader)
    times, waits, sides = [], [], []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for step in range(WARM_UP + STEPS):
        start = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - start
        runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        for average in averages:
            average.after_train_iter(runner, step)
        if cuda:
            torch.cuda.synchronize()
        if step >= WARM_UP:
            times.append(time.perf_counter() - start)
            waits.append(waited)
        sides.append(_size(batch))
    size = max(side[0] for side in sides), max(side[1] for side in sides)
    memory = torch.cuda.max_memory_allocated() if cuda else _peak_of_process()
    return size, statistics.median(times), statistics.median(waits), memory


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _size(batch: Any) -> tuple[int, int]:
    inputs = batch['inputs'] if isinstance(batch, Mapping) else batch[0]
    images = [inputs] if isinstance(inputs, torch.Tensor) else inputs
    heights, widths = zip(*(image.shape[-2:] for image in images), strict=True)
    return max(heights), max(widths)


def _deployed(model: Any) -> Any:
    return reparameterize_model(copy.deepcopy(model).eval(), inplace=True)


def _macs(model: Any, size: tuple[int, int]) -> int | None:
    """Multiply-adds of convolutions and matrix products for one image."""
    image = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image, mode='tensor')
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None  # a model that cannot be run without its samples
    return counter.get_total_flops() // 2


def _device_name(model: Any) -> str:
    device = next(model.parameters()).device
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{device.type}, {torch.get_num_threads()} threads'


def _peak_of_process() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024
