"""The speed of an input pipeline: each stage on one core, and the loader with worker processes.

mmengine logs ``data_time``, the time that a step waits for its batch. That stays zero until the
loader is too slow. It does not tell how much is in reserve, or which transform costs most.
"""

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
    """A loader without workers whose transforms can be timed one by one.

    A pass over :attr:`batches` has ``num`` images. An InputError says that the dataset, or the one
    inside its wrappers, has no list of transforms.
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
        self.batch_size = loader.batch_size or 1
        order = np.random.default_rng(0).permutation(len(self.dataset))
        shape = max(1, num // self.batch_size), self.batch_size
        self.batches = np.resize(order, shape).tolist()
        self.example: Any = None
        self._reading = 0.0
        self._stages: dict[str, Any] = {}
        for transform in transforms:
            kind = type(transform).__name__
            if hasattr(transform, 'content'):  # LoadImage: reading and decoding are two stages
                transform.content = partial(self._timed_read, transform.content)
                kind = 'decode'
            same = sum(name.partition(' ')[0] == kind for name in self._stages)
            self._stages[f'{kind} #{same + 1}' if same else kind] = transform

    def _timed_read(self, read: Any, path: str) -> bytes:
        start = time.perf_counter()
        try:
            return read(path)
        finally:
            self._reading += time.perf_counter() - start

    def with_workers(self, number: int) -> DataLoader:
        """Make a loader of the same batches with worker processes."""
        return DataLoader(
            self.dataset,
            batch_sampler=self.batches,
            num_workers=number,
            collate_fn=self.loader.collate_fn,
            worker_init_fn=self.loader.worker_init_fn,
            persistent_workers=number > 0,
        )

    def run(self) -> dict[str, float]:
        """Prepare all batches and return the seconds of each stage, per image."""
        spent = dict.fromkeys([READ, *self._stages, COLLATE], 0.0)
        for indices in self.batches:
            samples = [self._sample(index, spent) for index in indices]
            samples = [sample for sample in samples if sample is not None]
            if not samples:
                raise InputError(f'train_dataloader: none of {len(indices)} images could be loaded')
            start = time.perf_counter()
            self.example = self.loader.collate_fn(samples)
            spent[COLLATE] += time.perf_counter() - start
        images = sum(map(len, self.batches))
        return {name: seconds / images for name, seconds in spent.items()}

    def _sample(self, index: int, spent: dict[str, float]) -> Any:
        set_random_seed(index)  # two pipelines draw the same random numbers for an image
        results = self.dataset.get_data_info(index)
        for name, transform in self._stages.items():
            self._reading, start = 0.0, time.perf_counter()
            results = transform(results)
            spent[name] += time.perf_counter() - start - self._reading
            spent[READ] += self._reading
            if results is None:
                break
        return results


def measure(
    pipelines: Sequence[StagedPipeline], num_workers: Sequence[int], repeats: int
) -> list[InputSpeed]:
    """Measure the stages of some pipelines, and their loaders with some numbers of workers.

    The passes of the pipelines take turns. The stages run on one thread, as in a worker. One pass
    more than ``repeats``, before them, fills the caches; it reads from the storage.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        turns = [[pipeline.run() for pipeline in pipelines] for _ in range(repeats + 1)]
    finally:
        torch.set_num_threads(threads)
    speeds = []
    for pipeline, (first, *counted) in zip(pipelines, zip(*turns, strict=True), strict=True):
        stages = {name: median(run[name] for run in counted) for name in first}
        speeds.append(InputSpeed(pipeline.batch_size, stages, first_read=first[READ]))
    for number in num_workers:
        passes: dict[str, Any] = {}
        for index, pipeline in enumerate(pipelines):
            passes[str(index)] = partial(deque, pipeline.with_workers(number), maxlen=0)
        times = interleaved(passes, repeats)
        for pipeline, speed, seconds in zip(pipelines, speeds, times.values(), strict=True):
            speed.workers[number] = sum(map(len, pipeline.batches)) / median(seconds)
    return speeds


def input_report(
    speeds: Sequence[InputSpeed], step_rate: float | None = None, target_rate: float | None = None
) -> str:
    """Format tables of stages and workers, and the number of cores that the model needs.

    ``speeds`` are the pipeline and the one that it is compared with, if any. The rates are images per
    second of the training step, here and on another machine.
    """
    speed, other = speeds[0], speeds[1] if len(speeds) > 1 else InputSpeed(0)
    stages, others = ({**s.stages, 'all': sum(s.stages.values())} for s in (speed, other))
    rows = [['stage', 'ms / image', 'share', 'images/s', 'time / against']]
    for name, seconds in stages.items():
        ratio = f'{seconds / others[name]:.2f}' if others.get(name) else '-'
        share, rate = f'{seconds / stages["all"]:.0%}', _rate(1 / seconds) if seconds else '-'
        rows.append([name, f'{seconds * 1e3:.3f}', share, rate, ratio])
    counts = [['num_workers', 'images/s', 'per worker', 'time / against']]
    for number, found in speed.workers.items():
        ratio = f'{other.workers.get(number, 0) / found:.2f}'
        counts.append([str(number), _rate(found), _rate(found / max(1, number)), ratio])
    parts = []
    for title, table in (('Stages, on one core', rows), ('Loader, with worker processes', counts)):
        shown = table if len(speeds) > 1 else [row[:-1] for row in table]
        parts += [title, text_table(shown, numbers_from=1), '']
    if speed.first_read:
        parts.append(
            f'The first pass read an image in {speed.first_read * 1e3:.3f} ms. That is the time of '
            'the storage, unless the files were in the page cache before.'
        )
    parts.append(f'One core prepares {_rate(speed.rate)} images/s (batches of {speed.batch_size}).')
    for wanted, name in ((step_rate, 'The training step here'), (target_rate, '--target-rate')):
        if wanted is not None:
            cores = wanted / speed.rate
            parts.append(
                f'{name}: {_rate(wanted)} images/s; needs {cores:.2f} cores: '
                f'num_workers={math.ceil(cores)} or more.'
            )
    return '\n'.join(parts)


def _rate(rate: float) -> str:
    return f'{rate:.0f}' if rate >= 100 else f'{rate:.3g}'
