"""Measure the training pipeline of a config, and its training step."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from ..benchmark.input import InputSpeed, StagedPipeline, input_report, measure
from ..benchmark.train_step import measure_train_step
from ..config.explain import config_faults
from ..errors import InputError, check_least
from ..runs.prepare import TRAIN_IMAGES, prepare
from ..training.channels_last import use_channels_last
from ..training.launch import select_device
from ..training.runner import Runner


def measure_input(
    config: str | Path,
    num_workers: Sequence[int] = (),
    num: int = 512,
    repeats: int = 5,
    against: Mapping[str, Any] | None = None,
    train_step: bool = True,
    target_rate: float | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> tuple[list[InputSpeed], float | None]:
    """Measure the training pipeline stage by stage and with worker processes; print the result.

    Returns one entry for each pipeline, and images per second of the training step or None. An
    InputError says that the config, its data or an argument cannot be used.

    Args:
        num_workers: Numbers of worker processes; by default 1 and the cores of this machine.
        num: Images in each pass.
        repeats: Passes that count; their median is reported.
        against: Overrides that make a second pipeline, which is measured in turns with the first.
        target_rate: Images per second of the training step on another machine.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    workers = sorted(set(num_workers or (1, cores or 1)))
    check_least(0, num_workers=workers[0])
    check_least(1, num=num, repeats=repeats)
    if target_rate is not None and not 0 < target_rate < float('inf'):
        raise InputError(f'--target-rate: got {target_rate}; expected a number above 0')
    select_device(device)
    options = dict(cfg_options or {})
    changes = [options, {**options, **against}] if against else [options]
    configs = [prepare(config, overrides, TRAIN_IMAGES).cfg for overrides in changes]
    pipelines = [_pipeline(cfg, num) for cfg in configs]
    speeds = measure(pipelines, workers, repeats)
    rate = _step_rate(configs[0], pipelines[0]) if train_step else None
    print(input_report(speeds, rate, target_rate))
    return speeds, rate


def _pipeline(cfg: Config, num: int) -> StagedPipeline:
    loader = {**cfg.train_dataloader, 'num_workers': 0, 'persistent_workers': False}
    loader.pop('prefetch_factor', None)
    with config_faults(cfg):
        return StagedPipeline(Runner.build_dataloader(loader, seed=0), num)


def _step_rate(cfg: Config, pipeline: StagedPipeline) -> float:
    if cfg.get('optim_wrapper') is None:
        raise InputError("config: has no 'optim_wrapper'; give --no-train-step")
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # otherwise there is a line for each parameter
    try:
        with config_faults(cfg):
            model = MODELS.build(cfg.model).to(get_device())
            if cfg.get('channels_last'):
                use_channels_last(model, get_device())
            optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    finally:
        logger.setLevel(level)
    cost = measure_train_step(model, optimizer, [pipeline.example])
    return pipeline.batch_size / cost.seconds
