"""The plan of a run as tables and as a drawing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..benchmark.tables import text_table
from ..files import atomic_write
from .plan import Group, Plan

# The table has no room for more groups; the largest ones are shown.
_MOST_GROUPS = 4
_SINGULAR = {'weights': 'weight', 'biases': 'bias', 'norms': 'norm'}


def report(plan: Plan, title: str) -> str:
    """Format the plan as text with a title."""
    parts = [title, _facts(plan), _groups(plan), _points(plan), _measures(plan)]
    return '\n\n'.join(parts)


def draw(plan: Plan, path: str | Path, title: str) -> None:
    """Draw the schedules over the run into a PNG file, one panel for each setting."""
    from matplotlib.figure import Figure

    panels = _panels(plan)
    figure = Figure(figsize=(8, 0.8 + 1.7 * len(panels)), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    per = plan.length if plan.epochs else 1
    xs = [point.iteration / per for point in plan.curve]
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        for label, values in lines.items():
            axis.plot(xs, values, label=label, drawstyle='steps-post' if not label else 'default')
        axis.set_ylabel(name)
        highest = max(max(values) for values in lines.values()) or 1
        axis.set_ylim(-0.05 * highest, 1.08 * highest)  # keeps lines at zero and at the top visible
        axis.ticklabel_format(axis='y', style='sci', scilimits=(-3, 4))
        axis.margins(x=0.01)
        axis.grid(alpha=0.3)
        for first, _ in plan.phases[1:]:
            axis.axvline(first / per, color='grey', linestyle=':', linewidth=1)
        if len(lines) > 1:
            axis.legend(fontsize='small')
    axes[-1].set_xlabel('epochs' if plan.epochs else 'iterations')
    atomic_write(path, lambda file: figure.savefig(file, format='png', dpi=100))


def _panels(plan: Plan) -> dict[str, dict[str, list[Any]]]:
    """Return the lines of each panel by label; a panel with one line of steps has no label."""
    shown = _shown(plan)
    names = {i: f'group {i + 1}: {_kinds(plan.groups[i])}' for i in shown}
    panels: dict[str, dict[str, list[Any]]] = {
        'learning rate': {
            names[i]: [point.lr[i] for point in plan.curve] for i in _distinct_rates(plan)
        },
        'weight decay': {names[i]: [point.weight_decay[i] for point in plan.curve] for i in shown},
    }
    for key in _phase_keys(plan):
        panels[key] = {'': [getattr(plan.phase_at(p.iteration), key) for p in plan.curve]}
    momenta = [point.ema or 0.0 for point in plan.curve]
    if len(set(momenta)) > 1:
        panels['EMA momentum'] = {'': momenta}
    return panels


def _facts(plan: Plan) -> str:
    processes, size, accumulated = plan.batch
    batch = (
        f'{processes * size * accumulated} images a step: {size} x {processes:,} '
        f'{"process" if processes == 1 else "processes"}'
    )
    run = f'{plan.iterations:,} iterations'
    if plan.epochs:
        epochs = f'{plan.epochs:,} {"epoch" if plan.epochs == 1 else "epochs"}'
        run = f'{epochs} of {plan.length:,} iterations, {run} in all'
    if accumulated > 1:
        batch += f' x {accumulated} accumulated'
        run += f', {-(-plan.iterations // accumulated):,} steps of the optimizer'
    rows = [
        ('model', f'{plan.parameters:,} parameters, {plan.parameters_deploy:,} in deploy form'),
        ('data', f'{plan.samples:,} images'),
        ('batch', batch),
        ('run', run),
    ]
    return text_table(rows)


def _groups(plan: Plan) -> str:
    rows = [['group', 'parameters', 'lr', 'weight decay', 'tensors']]
    for index, group in enumerate(plan.groups, 1):
        numbers = f'{group.parameters:,}', f'{group.lr:.4g}', f'{group.weight_decay:.4g}'
        rows.append([str(index), *numbers, _kinds(group)])
    text = text_table(rows)
    if len({group.weight_decay > 0 for group in plan.groups if 'norms' in group.kinds}) > 1:
        text += (
            '\nSome norms have weight decay, others have none: entries of paramwise_cfg.custom_keys '
            'switch norm_decay_mult off.'
        )
    return text


def _points(plan: Plan) -> str:
    rates = _distinct_rates(plan)
    columns: dict[str, Callable[..., str]] = {}  # of a point
    if plan.epochs:
        columns['epoch'] = lambda point: str(point.iteration // plan.length + 1)
    columns['iteration'] = lambda point: f'{point.iteration + 1:,}'
    for i in rates:
        name = f'lr {i + 1}' if len(rates) > 1 else 'lr'
        columns[name] = lambda point, i=i: f'{point.lr[i]:.4g}'
    for i in _shown(plan):
        name = f'decay {i + 1}' if len(plan.groups) > 1 else 'decay'
        columns[name] = lambda point, i=i: f'{point.weight_decay[i]:.4g}'
    for key in _phase_keys(plan):
        columns[key] = lambda point, key=key: str(getattr(plan.phase_at(point.iteration), key))
    if any(point.ema is not None for point in plan.points):
        columns['EMA momentum'] = lambda p: 'off' if p.ema is None else f'{p.ema:.4g}'
    rows = [[cell(point) for cell in columns.values()] for point in plan.points]
    return text_table([list(columns), *rows])


def _measures(plan: Plan) -> str:
    rows = [['size', 'iterations', 'MMACs', 'deploy', 's/iteration', 'loading', 'memory', 'time']]
    total = 0.0
    for measure in plan.measures:
        cost = measure.cost
        total += cost.seconds * measure.iterations
        counts = (measure.macs, measure.macs_deploy)
        row = [
            f'{cost.size[1]} x {cost.size[0]}',
            f'{measure.iterations:,}',
            *('?' if macs is None else f'{macs / 1e6:,.0f}' for macs in counts),
            f'{cost.seconds:.3g}',
            f'{cost.waited / cost.seconds:.0%}',
            '?' if cost.memory is None else f'{cost.memory / 2**30:.2f} GB',
            _duration(cost.seconds * measure.iterations),
        ]
        rows.append(row)
    return (
        f'{text_table(rows)}\n'
        f'About {_duration(total)} on {plan.device}, from a few measured steps, without validation.'
    )


def _phase_keys(plan: Plan) -> list[str]:
    first = plan.phase_at(0)
    return [key for key in ('resolution', 'strength') if getattr(first, key, None) is not None]


def _shown(plan: Plan) -> list[int]:
    largest = sorted(range(len(plan.groups)), key=lambda i: -plan.groups[i].parameters)
    return sorted(largest[:_MOST_GROUPS])


def _distinct_rates(plan: Plan) -> list[int]:
    """Return the shown groups whose learning rate differs from those of all earlier groups."""
    found: dict[tuple, int] = {}
    for index in _shown(plan):
        found.setdefault(tuple(point.lr[index] for point in plan.curve), index)
    return list(found.values())


def _kinds(group: Group) -> str:
    counts = group.kinds.items()
    return ', '.join(f'{n:,} {kind if n > 1 else _SINGULAR[kind]}' for kind, n in counts)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))
