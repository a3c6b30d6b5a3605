"""What a resumed run takes from its checkpoint, against what its config says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from ..errors import InputError, one_line
from ..faults import in_user_code, user_fault

#: the key in the message hub, and so in a checkpoint, for the classes of the optimizers
_OPTIMIZER = 'optimizer_class'
Settings = list[tuple[str, dict[str, Any]]]
_ANOTHER_RUN = 'start a new run from the weights with --cfg-options load_from=...'


@contextmanager
def checked_resume(runner: Runner) -> Iterator[None]:
    """Turn a state that does not fit into an InputError, and log which settings were replaced.

    mmengine replaces the schedules and the optimizer settings of the config by those of the checkpoint
    and does not say so. A run that is resumed in order to train longer then stays at the rate where
    the old one ended.
    """
    if not runner._resume:
        yield
        return
    planned = _schedules(runner), _optimizer_settings(runner)
    try:
        yield
        _check_optimizers(runner)
    except (InputError, OSError):
        raise
    except Exception as error:  # torch and mmengine raise many kinds for the state of another run
        if in_user_code(error) or user_fault(error):
            raise
        _check_optimizers(runner)
        raise InputError(
            f"--resume: the state in '{runner._load_from}' does not fit this run "
            f'({type(error).__name__}: {one_line(error)[:200]}); resume with the config that the run '
            f'was started with, or {_ANOTHER_RUN}'
        ) from error
    used = _schedules(runner), _optimizer_settings(runner)
    for kind, before, after in zip(('schedule', 'optimizer settings'), planned, used, strict=True):
        _report_changes(runner, kind, before, after)


def _report_changes(runner: Runner, kind: str, planned: Settings, used: Settings) -> None:
    """Log which settings of the checkpoint replace those of the config."""
    for (name, own), (_, taken) in zip(planned, used, strict=False):
        changed = [
            f'{key} {taken.get(key)}, not {own[key]}' for key in own if taken.get(key) != own[key]
        ]
        if changed:
            runner.logger.warning(
                f'{name}: the run uses the {kind} of its checkpoint ({", ".join(changed)} as in this '
                f'config). To change that, {_ANOTHER_RUN}'
            )


def _schedules(runner: Runner) -> Settings:
    """Return class and settings of each parameter scheduler, in order."""
    found: Any = runner.param_schedulers
    groups = found.values() if isinstance(found, dict) else [found or []]
    progress = ('last_step', 'base_values', 'verbose')  # how far it is, not what it does
    return [
        (
            type(scheduler).__name__,
            {
                key: value
                for key, value in vars(scheduler).items()
                if isinstance(value, (int, float, list)) and key[0] != '_' and key not in progress
            },
        )
        for group in groups
        for scheduler in group
    ]


def note_optimizers(runner: Runner) -> None:
    """Write the classes of the optimizers of a run into its checkpoints."""
    runner.message_hub.update_info(_OPTIMIZER, _names(_optimizers(runner)))


def _optimizers(runner: Runner) -> list[torch.optim.Optimizer]:
    wrapper: Any = runner.optim_wrapper  # of a test a dict or None
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [one.optimizer for one in wrappers if isinstance(one, OptimWrapper)]


def _names(optimizers: list[torch.optim.Optimizer]) -> str:
    return ', '.join(type(optimizer).__name__ for optimizer in optimizers)


def _check_optimizers(runner: Runner) -> None:
    """Check that the checkpoint is of a run with the same optimizers.

    torch accepts the state of another class. The first step then fails, or uses it for other numbers.
    """
    optimizers = _optimizers(runner)
    # Absent in a checkpoint of a host's tool.
    named = runner.message_hub.runtime_info.get(_OPTIMIZER)
    lacking = [
        key for o in optimizers for g in o.param_groups for key in o.defaults if key not in g
    ]
    if lacking or named not in (None, _names(optimizers)):
        found = f'is of a run with {named}' if named else f"lacks '{lacking[0]}' of the optimizer"
        raise InputError(
            f"--resume: '{runner._load_from}' {found}, the config has {_names(optimizers)}; resume "
            f'with the optimizer that the run was started with, or {_ANOTHER_RUN}'
        )


def _optimizer_settings(runner: Runner) -> Settings:
    """Return class and settings of each optimizer, all values if its parameter groups have several.

    A scheduled setting has its value of the start of the run.
    """
    found = []
    for optimizer in _optimizers(runner):
        settings: dict[str, Any] = {}
        for key in optimizer.defaults:
            values: list[Any] = []
            for group in optimizer.param_groups:
                if (value := _at_start(group, key)) not in values:
                    values.append(value)
            settings[key] = values[0] if len(values) == 1 else values
        found.append((type(optimizer).__name__, settings))
    return found


def _at_start(group: dict[str, Any], key: str) -> Any:
    value = group.get(f'initial_{key}', group.get(key))
    # mmengine schedules the first of them by this name.
    if key == 'betas' and 'initial_momentum' in group:
        value = (group['initial_momentum'], group['betas'][1])
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value
