"""The speed of an input pipeline: each stage on one core, and the loader with worker processes.

mmengine logs ``data_time``, the time that a step waits for its batch. That stays zero until the
loader is too slow. It does not tell how much is in reserve, or which transform costs most.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from mmengine.runner import set_random_seed
from torch.utils.data import DataLoader

from ..errors import InputError
from .tables import text_table
from .timer import interleaved

READ, COLLATE = 'read', 'collate'


@dataclass
class InputSpeed:
    """What is measured of one pipeline; all times are medians."""

    batch_size: int
    stages: dict[str, float] = field(default_factory=dict)  # seconds an image, on one core
    workers: dict[int, float] = field(default_factory=dict)  # images per second, by their number
    first_read: float = 0.0  # seconds to read an image in the first pass, which does not count

    @property
    def rate(self) -> float:
        """Images per second that one core prepares: of one worker, else by the sum of the stages."""
        rates = [rate / number for number, rate in sorted(self.workers.items()) if number]
        return rates[0] if rates else 1 / sum(self.stages.values())


class StagedPipeline:
    """A loader whose transforms can be timed one by one.

    The loader has no workers. Its dataset, or the one inside its wrappers, has a ``pipeline`` of
    transforms. A pass over :attr:`batches` has ``num`` images.

    Raises:
        InputError: The dataset has no list of transforms.
    """

    def __init__(self, loader: DataLoader, num: int) -> None:
        self.loader = loader
        inner: Any = loader.dataset
        self.dataset = inner
        while not hasattr(inner, 'pipeline') and hasattr(inner, 'dataset'):
            inner = inner.dataset
        transforms = getattr(getattr(inner, 'pipeline', None), 'transforms', None)
        if not transforms:
            raise InputError(
                f'train_dataloader.dataset: {type(inner).__name__} has no list of transforms of its '
                'own; measure the dataset inside it'
            )
        size = loader.batch_size or 1
        order = np.random.default_rng(0).permutation(len(self.dataset))
        self.batches = np.resize(order, (max(1, num // size), size)).tolist()
        self.speed = InputSpeed(size)
        self.example: Any = None
        self._reading = 0.0
        self._stages: dict[str, Any] = {}
        for transform in transforms:
            kind = type(transform).__name__
            if hasattr(transform, 'content'):  # LoadImage: reading and decoding are two stages
                transform.content = self._timed_read(transform.content)
                kind = 'decode'
            same = sum(name.partition(' ')[0] == kind for name in self._stages)
            self._stages[f'{kind} #{same + 1}' if same else kind] = transform

    def _timed_read(self, read: Any) -> Any:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return read(*args)
            finally:
                self._reading += time.perf_counter() - start

        return call

    def prepare(self, indices: Sequence[int]) -> dict[str, float]:
        """Prepare a batch and return the seconds of each stage, summed over its images."""
        spent = dict.fromkeys([READ, *self._stages, COLLATE], 0.0)
        samples = []
        for index in indices:
            set_random_seed(index)  # two pipelines draw the same random numbers for an image
            results = self.dataset.get_data_info(index)
            for name, transform in self._stages.items():
                self._reading, start = 0.0, time.perf_counter()
                results = transform(results)
                spent[name] += time.perf_counter() - start - self._reading
                spent[READ] += self._reading
                if results is None:
                    break
            else:
                samples.append(results)
        if not samples:
            raise InputError(f'train_dataloader: none of {len(indices)} images could be loaded')
        start = time.perf_counter()
        self.example = self.loader.collate_fn(samples)
        spent[COLLATE] = time.perf_counter() - start
        return spent


def measure_stages(pipelines: Sequence[StagedPipeline], repeats: int) -> None:
    """Time the stages on one thread, as in a worker; the batches of several pipelines take turns.

    One pass more than ``repeats``, before them, fills the caches; it reads from the storage. The
    :attr:`~StagedPipeline.speed` of each pipeline gets ``stages`` and ``first_read``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        passes = [_stage_pass(pipelines) for _ in range(repeats + 1)]
    finally:
        torch.set_num_threads(threads)
    for pipeline, (first, *counted) in zip(pipelines, zip(*passes, strict=True), strict=True):
        pipeline.speed.first_read = first[READ]
        pipeline.speed.stages = {name: median(run[name] for run in counted) for name in first}


def _stage_pass(pipelines: Sequence[StagedPipeline]) -> list[dict[str, float]]:
    """Return the seconds per image of each stage, by pipeline."""
    sums: list[dict[str, float]] = [{} for _ in pipelines]
    rounds = list(zip(*(pipeline.batches for pipeline in pipelines), strict=False))
    for batches in rounds:
        for pipeline, batch, total in zip(pipelines, batches, sums, strict=True):
            for name, spent in pipeline.prepare(batch).items():
                total[name] = total.get(name, 0.0) + spent / len(batch) / len(rounds)
    return sums


def measure_workers(
    pipelines: Sequence[StagedPipeline], num_workers: Sequence[int], repeats: int
) -> None:
    """Measure the rate of the loader with some numbers of workers; several loaders take turns."""
    for number in num_workers:
        passes: dict[str, Any] = {}
        for index, pipeline in enumerate(pipelines):
            loader: DataLoader = DataLoader(
                pipeline.dataset,
                batch_sampler=pipeline.batches,
                num_workers=number,
                collate_fn=pipeline.loader.collate_fn,
                worker_init_fn=pipeline.loader.worker_init_fn,
                persistent_workers=number > 0,
            )
            passes[str(index)] = partial(deque, loader, maxlen=0)
        times = interleaved(passes, repeats)
        for pipeline, seconds in zip(pipelines, times.values(), strict=True):
            pipeline.speed.workers[number] = sum(map(len, pipeline.batches)) / median(seconds)


def input_report(
    speeds: Sequence[InputSpeed], step_rate: float | None = None, target_rate: float | None = None
) -> str:
    """Format tables of stages and workers, and the number of cores that the model needs.

    Args:
        speeds: The pipeline, and the one that it is compared with, if any.
        step_rate: Images per second of the training step.
        target_rate: Images per second of the training step on another machine.
    """
    speed, against = speeds[0], speeds[1] if len(speeds) > 1 else None
    parts = ['Stages, on one core', _stages(speed, against)]
    parts += ['', 'Loader, with worker processes', _workers(speed, against), '']
    if speed.first_read:
        parts.append(
            f'The first pass read an image in {speed.first_read * 1e3:.3f} ms. That is the time of '
            'the storage, unless the files were in the page cache before.'
        )
    parts.append(f'One core prepares {_rate(speed.rate)} images/s (batches of {speed.batch_size}).')
    for rate, name in ((step_rate, 'The training step here'), (target_rate, '--target-rate')):
        if rate is not None:
            cores = rate / speed.rate
            parts.append(
                f'{name}: {_rate(rate)} images/s; needs {cores:.2f} cores: '
                f'num_workers={math.ceil(cores)} or more.'
            )
    return '\n'.join(parts)


def _stages(speed: InputSpeed, against: InputSpeed | None) -> str:
    rows = [['stage', 'ms / image', 'share', 'images/s']]
    total = sum(speed.stages.values())
    other = against.stages | {'all': sum(against.stages.values())} if against else {}
    for name, seconds in (speed.stages | {'all': total}).items():
        row = [name, f'{seconds * 1e3:.3f}', f'{seconds / total:.0%}']
        row.append(_rate(1 / seconds) if seconds else '-')
        rows.append([*row, f'{seconds / other[name]:.2f}' if other.get(name) else '-'])
    return _compared(rows, against)


def _workers(speed: InputSpeed, against: InputSpeed | None) -> str:
    rows = [['num_workers', 'images/s', 'per worker']]
    for number, rate in speed.workers.items():
        row = [str(number), _rate(rate), _rate(rate / max(1, number))]
        rows.append([*row, f'{against.workers[number] / rate:.2f}' if against else ''])
    return _compared(rows, against)


def _compared(rows: list[list[str]], against: InputSpeed | None) -> str:
    rows[0].append('time / against')
    return text_table(rows if against else [row[:-1] for row in rows], numbers_from=1)


def _rate(rate: float) -> str:
    return f'{rate:.0f}' if rate >= 100 else f'{rate:.3g}'
