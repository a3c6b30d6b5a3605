"""The plan of a run as tables and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..files import atomic_write

if TYPE_CHECKING:
    from ..apis.dry_run import Measure, Plan
    from .schedules import Group

# Columns for more groups would not fit; those with most parameters are shown.
_MOST_GROUPS = 4
_DOTS_PER_INCH = 100
_Lines: TypeAlias = dict[str, list[Any]]


def report(plan: Plan, title: str) -> str:
    """The plan as text.

    Args:
        plan: The plan.
        title: The first line.
    """
    parts = [title, _facts(plan), _groups(plan), _points(plan), _measures(plan)]
    return '\n\n'.join(part for part in parts if part)


def draw(plan: Plan, path: str | Path, title: str) -> None:
    """Draw the schedules over the run, in panels one above the other.

    Args:
        plan: The plan.
        path: A ``.png``, written whole or not at all.
        title: Title of the drawing.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    panels = _panels(plan)
    figure = Figure(figsize=(8, 0.8 + 1.7 * len(panels)), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    per = plan.length if plan.epochs else 1
    xs = [point.iteration / per for point in plan.curve]
    for axis, (name, lines) in zip(axes, panels, strict=True):
        for label, values in lines.items():
            axis.plot(xs, values, label=label, drawstyle='steps-post' if not label else 'default')
        axis.set_ylabel(name)
        highest = max(max(values) for values in lines.values()) or 1
        axis.set_ylim(-0.05 * highest, 1.08 * highest)  # lines at zero and at the top are seen
        axis.ticklabel_format(axis='y', style='sci', scilimits=(-3, 4))
        axis.margins(x=0.01)
        axis.grid(alpha=0.3)
        for first, _ in plan.phases[1:]:
            axis.axvline(first / per, color='grey', linestyle=':', linewidth=1)
        if len(lines) > 1:
            axis.legend(fontsize='small')
    axes[-1].set_xlabel('epochs' if plan.epochs else 'iterations')
    atomic_write(path, lambda file: figure.savefig(file, format='png', dpi=_DOTS_PER_INCH))


def _panels(plan: Plan) -> list[tuple[str, _Lines]]:
    """Name of each panel with its lines by name; one that goes in steps has none."""
    shown = _shown(plan)
    names = {i: f'group {i + 1}: {_kinds(plan.groups[i])}' for i in shown}
    rates = {names[i]: [point.lr[i] for point in plan.curve] for i in _distinct_rates(plan)}
    decays = {names[i]: [point.weight_decay[i] for point in plan.curve] for i in shown}
    panels: list[tuple[str, _Lines]] = [('learning rate', rates), ('weight decay', decays)]
    phases = [plan.phase_at(point.iteration) for point in plan.curve]
    for key in ('resolution', 'strength'):
        values = [getattr(phase, key, None) for phase in phases]
        if values[0] is not None:
            panels.append((key, {'': values}))
    momenta = [0.0 if point.ema is None else point.ema for point in plan.curve]
    if len(set(momenta)) > 1:
        panels.append(('EMA momentum', {'': momenta}))
    return panels


def _facts(plan: Plan) -> str:
    processes, size, accumulated = plan.batch
    batch = (
        f'{processes * size * accumulated} images a step: {size} x {_count(processes, "process")}'
    )
    batch += f' x {accumulated} accumulated' if accumulated > 1 else ''
    run = f'{plan.iterations:,} iterations'
    if plan.epochs:
        run = f'{_count(plan.epochs, "epoch")} of {plan.length:,} iterations, {run} in all'
    if accumulated > 1:
        run += f', {-(-plan.iterations // accumulated):,} steps of the optimizer'
    rows = [
        ('model', f'{plan.parameters:,} parameters, {plan.parameters_deploy:,} in deploy form'),
        ('data', f'{plan.samples:,} images'),
        ('batch', batch),
        ('run', run),
    ]
    return _table(rows)


def _groups(plan: Plan) -> str:
    rows: list[Sequence[str]] = [('group', 'parameters', 'lr', 'weight decay', 'tensors')]
    for index, group in enumerate(plan.groups):
        rows.append(
            (
                str(index + 1),
                f'{group.parameters:,}',
                f'{group.lr:.4g}',
                f'{group.weight_decay:.4g}',
                _kinds(group),
            )
        )
    text = _table(rows)
    norms = {group.weight_decay > 0 for group in plan.groups if 'norms' in group.kinds}
    if len(norms) > 1:
        text += (
            '\nSome norms have weight decay, others have none: entries of paramwise_cfg.custom_keys '
            'switch norm_decay_mult off.'
        )
    return text


def _points(plan: Plan) -> str:
    rates, shown = _distinct_rates(plan), _shown(plan)
    several = len(plan.groups) > 1
    header = ['epoch'] if plan.epochs else []
    header += ['iteration']
    header += [f'lr {i + 1}' if len(rates) > 1 else 'lr' for i in rates]
    header += [f'decay {i + 1}' if several else 'decay' for i in shown]
    keys = [k for k in ('resolution', 'strength') if getattr(plan.phase_at(0), k, None) is not None]
    header += keys
    averaged = any(point.ema is not None for point in plan.points)
    header += ['EMA momentum'] if averaged else []
    rows: list[Sequence[str]] = [header]
    for point in plan.points:
        row = [str(point.iteration // plan.length + 1)] if plan.epochs else []
        row += [f'{point.iteration + 1:,}']
        row += [f'{point.lr[i]:.4g}' for i in rates]
        row += [f'{point.weight_decay[i]:.4g}' for i in shown]
        row += [str(getattr(plan.phase_at(point.iteration), key)) for key in keys]
        if averaged:
            row += ['off' if point.ema is None else f'{point.ema:.4g}']
        rows.append(row)
    return _table(rows)


def _measures(plan: Plan) -> str:
    header = ('size', 'iterations', 'MMACs', 'deploy', 's/iteration', 'loading', 'memory', 'time')
    rows: list[Sequence[str]] = [header]
    rows += [_measured(measure) for measure in plan.measures]
    total = sum(measure.seconds * measure.iterations for measure in plan.measures)
    return (
        f'{_table(rows)}\n'
        f'About {_duration(total)} on {plan.device}, by a few measured steps; validation not counted.'
    )


def _measured(measure: Measure) -> Sequence[str]:
    height, width = measure.size
    memory = '?' if measure.memory is None else f'{measure.memory / 2**30:.2f} GB'
    return (
        f'{width} x {height}',
        f'{measure.iterations:,}',
        *(
            '?' if macs is None else f'{macs / 1e6:,.0f}'
            for macs in (measure.macs, measure.macs_deploy)
        ),
        f'{measure.seconds:.3g}',
        f'{measure.waited / measure.seconds:.0%}',
        memory,
        _duration(measure.seconds * measure.iterations),
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _shown(plan: Plan) -> list[int]:
    largest = sorted(range(len(plan.groups)), key=lambda i: -plan.groups[i].parameters)
    return sorted(largest[:_MOST_GROUPS])


def _distinct_rates(plan: Plan) -> list[int]:
    """The first of those shown groups that have the same learning rate throughout."""
    found: dict[tuple, int] = {}
    for index in _shown(plan):
        found.setdefault(tuple(point.lr[index] for point in plan.curve), index)
    return list(found.values())


def _kinds(group: Group) -> str:
    return ', '.join(
        f'{number:,} {kind if number > 1 else _SINGULAR[kind]}'
        for kind, number in group.kinds.items()
    )


_SINGULAR = {'weights': 'weight', 'biases': 'bias', 'norms': 'norm'}


def _count(number: int, noun: str) -> str:
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number:,} {noun if number == 1 else plural}'


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))
