"""How fast images come out of a config's input pipeline, and how fast its model takes them.

mmengine logs ``data_time``, the time that a step waited: that is zero up to the point where the
loader is too slow, and says nothing about how much is in reserve or which transform costs it.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch.utils.data import DataLoader

from ..config.explain import config_faults
from ..errors import InputError
from ..runs.prepare import TRAIN_IMAGES, prepare
from ..training import channels_last
from ..training.launch import select_device
from ..training.runner import Runner

LOADER = 'train_dataloader'
READ, COLLATE = 'read', 'collate'
_STEPS, _WARM_STEPS = 5, 2


@dataclass
class InputSpeed:
    """What was measured of one pipeline; all times are medians.

    Attributes:
        name: What the pipeline is called in the report.
        batch_size: Images in a batch.
        stages: Seconds an image takes in each stage, on one core.
        workers: Images a second out of the loader, by number of worker processes.
        first_read: Seconds to read an image in the pass before the measured ones.
    """

    name: str
    batch_size: int
    stages: dict[str, float] = field(default_factory=dict)
    workers: dict[int, float] = field(default_factory=dict)
    first_read: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second that one core prepares: a worker's, else the sum of the stages."""
        for number, rate in sorted(self.workers.items()):
            if number:
                return rate / number
        return 1 / sum(self.stages.values())


def measure_input(
    config: str | Path,
    num_workers: Sequence[int] = (),
    num: int = 512,
    repeats: int = 5,
    against: Mapping[str, Any] | None = None,
    train_step: bool = True,
    cfg_options: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> tuple[list[InputSpeed], float | None]:
    """Measure the training pipeline of a config: stage by stage, and with worker processes.

    Stages run in this process, one image after the other. Where two pipelines are compared, their
    batches take turns, so that other work on the machine slows both, and the same images get the
    same random numbers.

    Args:
        config: Path of the config.
        num_workers: Numbers of worker processes; by default 1 and the cores of this machine.
        num: Images in each repetition.
        repeats: Repetitions; the median counts. One more goes before them, unmeasured.
        against: Overrides that make a second pipeline to compare with.
        train_step: Whether to time the model's training step, too.
        cfg_options: Overrides by dotted key.
        device: Where the training step runs; by default the GPU if there is one.

    Returns:
        One entry for each pipeline; and images a second of the training step, None without it.

    Raises:
        InputError: Anything that the user gave does not fit.
    """
    num_workers = _checked(num_workers, num, repeats)
    select_device(device)
    configs = {'this': prepare(config, cfg_options, TRAIN_IMAGES).cfg}
    if against:
        options = {**(cfg_options or {}), **against}
        configs['against'] = prepare(config, options, TRAIN_IMAGES).cfg
    pipelines = []
    for name, cfg in configs.items():
        with config_faults(cfg):
            pipelines.append(_Pipeline(name, cfg, num))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker process
    try:
        _measure_stages(pipelines, repeats)
    finally:
        torch.set_num_threads(threads)
    _measure_workers(pipelines, num_workers, repeats)
    rate = _step_rate(configs['this'], pipelines[0]) if train_step else None
    return [pipeline.found for pipeline in pipelines], rate


def _checked(num_workers: Sequence[int], num: int, repeats: int) -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    numbers = sorted(set(num_workers or (1, cores or 1)))
    for name, value, least in (
        ('--num-workers', numbers[0], 0), ('--num', num, 1), ('--repeats', repeats, 1),
    ):  # fmt: skip
        if value < least:
            raise InputError(f'{name}: got {value}; at least {least} is needed')
    return numbers


class _Pipeline:
    """The dataset and the loader of a config, the transforms one by one."""

    def __init__(self, name: str, cfg: Config, num: int) -> None:
        loader = {**cfg[LOADER], 'num_workers': 0, 'persistent_workers': False}
        loader.pop('prefetch_factor', None)
        self.loader = Runner.build_dataloader(loader, seed=0)
        self.dataset = cast(Any, self.loader.dataset)
        inner = self.dataset
        while not hasattr(inner, 'pipeline') and hasattr(inner, 'dataset'):
            inner = inner.dataset
        transforms = getattr(getattr(inner, 'pipeline', None), 'transforms', None)
        if not transforms:
            raise InputError(
                f'{LOADER}.dataset: {type(inner).__name__} has no list of transforms of its own to '
                'measure; measure the dataset inside'
            )
        size = self.loader.batch_size or 1
        order = np.random.default_rng(0).permutation(len(self.dataset))
        count = max(1, num // size)
        self.batches = np.resize(order, (count, size)).tolist()
        self.found = InputSpeed(name, size)
        self.example: Any = None
        self._stages: list[tuple[str, Any]] = []
        self._reading = 0.0
        for transform in transforms:
            self._add(transform)

    def _add(self, transform: Any) -> None:
        kind = type(transform).__name__
        if hasattr(transform, 'content'):  # LoadImage: reading and decoding apart
            transform.content = self._timed(transform.content)
            kind = 'decode'
        same = sum(name.partition(' #')[0] == kind for name, _ in self._stages)
        self._stages.append((f'{kind} #{same + 1}' if same else kind, transform))

    def _timed(self, function: Any) -> Any:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                self._reading += time.perf_counter() - start

        return call

    def run(self, indices: Sequence[int]) -> dict[str, float]:
        """Prepare a batch; the seconds of each stage, all images together."""
        spent = dict.fromkeys([READ, *(name for name, _ in self._stages), COLLATE], 0.0)
        samples = []
        for index in indices:
            _seed(index)
            results = self.dataset.get_data_info(index)
            for name, transform in self._stages:
                self._reading, start = 0.0, time.perf_counter()
                results = transform(results)
                spent[name] += time.perf_counter() - start - self._reading
                spent[READ] += self._reading
                if results is None:
                    break
            else:
                samples.append(results)
        if not samples:
            raise InputError(f'{LOADER}: none of {len(indices)} images could be loaded')
        start = time.perf_counter()
        self.example = self.loader.collate_fn(samples)
        spent[COLLATE] = time.perf_counter() - start
        return spent


def _seed(index: int) -> None:
    random.seed(index)
    np.random.seed(index)
    torch.manual_seed(index)


def _measure_stages(pipelines: Sequence[_Pipeline], repeats: int) -> None:
    times: list[list[dict[str, float]]] = [[] for _ in pipelines]
    count = len(pipelines[0].batches)
    for repeat in range(repeats + 1):
        sums: list[dict[str, float]] = [{} for _ in pipelines]
        for number in range(count):
            for pipeline, total in zip(pipelines, sums, strict=True):
                batch = pipeline.batches[number % len(pipeline.batches)]
                for name, spent in pipeline.run(batch).items():
                    total[name] = total.get(name, 0.0) + spent / len(batch)
        for pipeline, of_pipeline, total in zip(pipelines, times, sums, strict=True):
            if repeat:
                of_pipeline.append(total)
            else:  # fills caches; what it read came from the storage
                pipeline.found.first_read = total[READ] / count
    for pipeline, of_pipeline in zip(pipelines, times, strict=True):
        pipeline.found.stages = {
            name: median(total[name] for total in of_pipeline) / count for name in of_pipeline[0]
        }


def _measure_workers(
    pipelines: Sequence[_Pipeline], num_workers: Sequence[int], repeats: int
) -> None:
    for number in num_workers:
        loaders = [
            DataLoader(
                pipeline.dataset,
                batch_sampler=pipeline.batches,
                num_workers=number,
                collate_fn=pipeline.loader.collate_fn,
                worker_init_fn=pipeline.loader.worker_init_fn,
                persistent_workers=number > 0,
            )
            for pipeline in pipelines
        ]
        times: list[list[float]] = [[] for _ in pipelines]
        for repeat in range(repeats + 1):
            for loader, of_pipeline in zip(loaders, times, strict=True):
                start = time.perf_counter()
                for _ in loader:
                    pass
                if repeat:  # the first one starts the workers
                    of_pipeline.append(time.perf_counter() - start)
        for pipeline, of_pipeline in zip(pipelines, times, strict=True):
            count = sum(map(len, pipeline.batches))
            pipeline.found.workers[number] = count / median(of_pipeline)


def _step_rate(cfg: Config, pipeline: _Pipeline) -> float:
    """Images a second of the whole training step: copy, forward, backward, optimizer."""
    if cfg.get('optim_wrapper') is None:
        raise InputError("config: has no 'optim_wrapper'; give --no-train-step")
    device = get_device()
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # a line for each parameter otherwise
    try:
        with config_faults(cfg):
            model = MODELS.build(cfg.model).to(device).train()
            if channels_last.is_enabled(cfg.get(channels_last.KEY)):
                channels_last.use_channels_last(model, device)
            optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    finally:
        logger.setLevel(level)
    times = []
    for _ in range(_WARM_STEPS + _STEPS):
        _wait(device)
        start = time.perf_counter()
        model.train_step(pipeline.example, optimizer)
        _wait(device)
        times.append(time.perf_counter() - start)
    return pipeline.found.batch_size / median(times[_WARM_STEPS:])


def _wait(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()
