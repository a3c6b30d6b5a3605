"""The speed of an input pipeline as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .input import InputSpeed
from .tables import text_table


def input_report(
    speeds: Sequence[InputSpeed], step_rate: float | None = None, target_rate: float | None = None
) -> str:
    """Format tables of stages and workers, and the number of cores that feed the model.

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
                f'{name}: {_rate(rate)} images/s; {cores:.2f} cores feed it: '
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
