"""The report of :mod:`mobileone_mm.apis.measure_input` as text."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ..apis.measure_input import InputSpeed


def input_report(
    found: Sequence[InputSpeed], step_rate: float | None, target_rate: float | None = None
) -> str:
    """Tables of stages and workers, and how many cores it takes to feed the model.

    Args:
        found: The pipeline, and the one it was compared with if there is one.
        step_rate: Images a second of the training step.
        target_rate: Images a second of another machine's training step.
    """
    first = found[0]
    parts = [_stages(found), _workers(found)]
    lines = [f'One core prepares {_number(first.rate)} images/s (batches of {first.batch_size}).']
    if first.first_read:
        lines.insert(
            0,
            f'The first pass read an image in {first.first_read * 1e3:.3f} ms: the time of the '
            'storage, unless the files were in the page cache before.',
        )
    for rate, what in ((step_rate, 'The training step here'), (target_rate, '--target-rate')):
        if rate is not None:
            lines.append(
                f'{what}: {_number(rate)} images/s; {rate / first.rate:.2f} cores feed it: '
                f'num_workers={math.ceil(rate / first.rate)} or more.'
            )
    return '\n'.join([*parts, *lines])


def _stages(found: Sequence[InputSpeed]) -> str:
    table = Table(box=box.ASCII, title='Stages, on one core')
    table.add_column('stage')
    for name in ('ms / image', 'share', 'images/s'):
        table.add_column(name, justify='right')
    _compare_column(table, found)
    total = sum(found[0].stages.values())
    for name, seconds in [*found[0].stages.items(), ('all', total)]:
        if name == 'all':
            table.add_section()
        row = [name, f'{seconds * 1e3:.3f}', f'{seconds / total:.0%}', _number(1 / seconds)]
        if len(found) > 1:
            other = found[1].stages
            theirs = sum(other.values()) if name == 'all' else other.get(name)
            row.append('-' if not theirs else f'{seconds / theirs:.2f}')
        table.add_row(*row)
    return _text(table)


def _workers(found: Sequence[InputSpeed]) -> str:
    table = Table(box=box.ASCII, title='Loader, with worker processes')
    for name in ('num_workers', 'images/s', 'per worker'):
        table.add_column(name, justify='right')
    _compare_column(table, found)
    for number, rate in found[0].workers.items():
        row = [str(number), _number(rate), _number(rate / max(1, number))]
        if len(found) > 1:
            row.append(f'{found[1].workers[number] / rate:.2f}')
        table.add_row(*row)
    return _text(table)


def _compare_column(table: Table, found: Sequence[InputSpeed]) -> None:
    if len(found) > 1:
        table.add_column('time / against', justify='right')


def _text(table: Table) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(table)
    return file.getvalue().rstrip()


def _number(rate: float) -> str:
    return f'{rate:.0f}' if rate >= 100 else f'{rate:.3g}'
