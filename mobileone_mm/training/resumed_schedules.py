"""What a resumed run takes from its checkpoint in the place of the config's schedules."""

from __future__ import annotations

from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.runner import Runner

# Where a schedule stands, not what it is.
_STATE = ('last_step', 'base_values', 'verbose')

Settings = list[tuple[str, dict[str, Any]]]


def schedule_settings(runner: Runner) -> Settings:
    """Class and settings of each parameter scheduler of a run, in order; none before they are built."""
    found = runner.param_schedulers
    groups = found.values() if isinstance(found, dict) else [found]
    return [
        (type(scheduler).__name__, _settings(scheduler))
        for group in groups
        if isinstance(group, list)
        for scheduler in group
        if isinstance(scheduler, _ParamScheduler)
    ]


def warn_of_taken(runner: Runner, planned: Settings) -> None:
    """Warn where a checkpoint's schedules are others than the planned ones.

    Args:
        runner: After it has resumed.
        planned: What :func:`schedule_settings` gave before.
    """
    for (name, own), (_, taken) in zip(planned, schedule_settings(runner), strict=False):
        changed = [
            f'{key} {taken[key]}, not {own[key]}' for key in own if taken.get(key) != own[key]
        ]
        if changed:
            runner.logger.warning(
                f'{name}: the run goes on with the schedule of its checkpoint ({", ".join(changed)} as '
                'in this config). For another schedule start a new run from the weights: '
                '--cfg-options load_from=...'
            )


def _settings(scheduler: Any) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(scheduler).items()
        if isinstance(value, (int, float, list)) and not key.startswith('_') and key not in _STATE
    }
