"""Time and memory of the training step: load, copy, forward, backward, optimizer."""

import itertools
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from .timer import interleaved

WARM_UP, STEPS = 2, 6


@dataclass(frozen=True)
class StepCost:
    """What a training step costs; times are medians in seconds."""

    size: tuple[int, int]  # largest height and width of a batch
    seconds: float  # from batch to batch
    waited: float  # the part of it that the step waited for the batch
    memory: int | None  # peak in bytes, of the GPU or else of the process; None where unknown


def measure_train_step(
    model: Any, optim_wrapper: Any, batches: Iterable[Any], hooks: Iterable[Any] = ()
) -> StepCost:
    """Train a model of mmengine's for a few steps and measure them; the weights change.

    The batches are repeated when they end. Hooks, such as an average, are called as ``hook(step)``.
    """
    device = next(model.parameters()).device
    waits: list[float] = []
    sizes: list[tuple[int, ...]] = []
    source = itertools.chain.from_iterable(itertools.repeat(batches))

    def step() -> None:
        start = time.perf_counter()
        batch = next(source)
        waits.append(time.perf_counter() - start)
        model.train_step(batch, optim_wrapper=optim_wrapper)
        for hook in hooks:
            hook(len(waits) - 1)
        inputs = batch['inputs'] if isinstance(batch, Mapping) else batch[0]
        sizes.extend(tuple(image.shape[-2:]) for image in inputs)

    model.train()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    times = interleaved({'step': step}, STEPS, WARM_UP, device=device)['step']
    heights, widths = zip(*sizes, strict=True)
    return StepCost(
        (max(heights), max(widths)), median(times), median(waits[WARM_UP:]), _peak_memory(device)
    )


def _peak_memory(device: torch.device) -> int | None:
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024
