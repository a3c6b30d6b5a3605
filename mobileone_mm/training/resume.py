"""Checks of a resumed run: the state fits the run, and its schedules are those of the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.runner import Runner

from ..errors import InputError, one_line

# What torch and mmengine raise when they load a state that belongs to another run.
_MISFITS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Attributes of a scheduler that say how far it is, not what it does.
_PROGRESS = ('last_step', 'base_values', 'verbose')


@contextmanager
def checked_resume(runner: Runner) -> Iterator[None]:
    """Turn a state that does not fit into one clear line, and log which schedules were replaced.

    mmengine replaces the schedules of the config by those of the checkpoint and does not say so. A
    run that is resumed in order to train longer then stays at the rate where the old one ended.

    Raises:
        InputError: The checkpoint to resume from holds the state of another run.
    """
    planned = _schedules(runner)
    try:
        yield
    except _MISFITS as error:
        if isinstance(error, InputError) or not runner._resume:
            raise
        raise InputError(
            f"--resume: the state in '{runner._load_from}' does not fit this run "
            f'({type(error).__name__}: {one_line(error)[:200]}); resume with the config that the run '
            'was started with, or start a new run from the weights with --cfg-options load_from=...'
        ) from error
    for (name, own), (_, taken) in zip(planned, _schedules(runner), strict=False):
        changed = [
            f'{key} {taken[key]}, not {own[key]}' for key in own if taken.get(key) != own[key]
        ]
        if changed:
            runner.logger.warning(
                f'{name}: the run uses the schedule of its checkpoint ({", ".join(changed)} as in '
                'this config). To use another schedule, start a new run from the weights: '
                '--cfg-options load_from=...'
            )


def _schedules(runner: Runner) -> list[tuple[str, dict[str, Any]]]:
    """Class and settings of each parameter scheduler, in order; none before they are built."""
    found = runner.param_schedulers
    groups = found.values() if isinstance(found, dict) else [found]
    return [
        (
            type(scheduler).__name__,
            {
                key: value
                for key, value in vars(scheduler).items()
                if isinstance(value, (int, float, list))
                and not key.startswith('_')
                and key not in _PROGRESS
            },
        )
        for group in groups
        if isinstance(group, list)
        for scheduler in group
        if isinstance(scheduler, _ParamScheduler)
    ]
