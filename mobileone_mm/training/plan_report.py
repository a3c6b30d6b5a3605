"""The plan of a run as tables and as a drawing."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from ..benchmark.tables import text_table
from ..files import atomic_write
from .plan import Plan, Point

# The table has no room for more groups; the largest ones are shown.
_MOST_GROUPS = 4


def report(plan: Plan, title: str) -> str:
    """Format the plan as text with a title."""
    return '\n\n'.join([title, _facts(plan), _groups(plan), _points(plan), _measures(plan)])


def draw(plan: Plan, path: str | Path, title: str) -> None:
    """Draw the schedules over the run into a PNG file, one panel for each kind of setting."""
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[Any]]] = {}
    for name, values in _series(plan, plan.curve).items():
        if name != 'EMA momentum' or len(set(values)) > 1:
            kind = name.rstrip(' 0123456789')
            panels.setdefault(kind, {})[name] = [value or 0.0 for value in values]
    figure = Figure(figsize=(8, 0.8 + 1.7 * len(panels)), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    per = plan.length if plan.epochs else 1
    xs = [point.iteration / per for point in plan.curve]
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        style = 'default' if name in ('lr', 'decay') else 'steps-post'
        for label, values in lines.items():
            axis.plot(xs, values, label=label, drawstyle=style)
        axis.set_ylabel(name)
        highest = max(max(values) for values in lines.values()) or 1
        axis.set_ylim(-0.05 * highest, 1.08 * highest)  # keeps lines at zero and at the top visible
        axis.ticklabel_format(axis='y', scilimits=(-3, 4))
        axis.margins(x=0.01)
        axis.grid(alpha=0.3)
        for first, _ in plan.phases[1:]:
            axis.axvline(first / per, color='grey', linestyle=':', linewidth=1)
        if len(lines) > 1:
            axis.legend(fontsize='small')
    axes[-1].set_xlabel('epochs' if plan.epochs else 'iterations')
    atomic_write(path, lambda file: figure.savefig(file, format='png', dpi=100))


def _series(plan: Plan, points: list[Point]) -> dict[str, list[Any]]:
    """Return the settings that the run has at some points; one for all groups with equal values."""
    found: dict[str, list[Any]] = {}
    largest = sorted(range(len(plan.groups)), key=lambda i: -plan.groups[i].parameters)
    for name, attribute in (('lr', 'lr'), ('decay', 'weight_decay')):
        curves: dict[tuple, int] = {}
        for i in sorted(largest[:_MOST_GROUPS]):
            curves.setdefault(tuple(getattr(point, attribute)[i] for point in plan.curve), i)
        for i in curves.values():
            label = f'{name} {i + 1}' if len(curves) > 1 else name
            found[label] = [getattr(point, attribute)[i] for point in points]
    phases = [plan.phase_at(point.iteration) for point in points]
    for key in ('resolution', 'strength'):
        if getattr(phases[0], key, None) is not None:
            found[key] = [getattr(phase, key) for phase in phases]
    if any(point.ema is not None for point in plan.curve):
        found['EMA momentum'] = [point.ema for point in points]
    return found


def _facts(plan: Plan) -> str:
    processes, size, accumulated = plan.batch
    run = f'{plan.epochs:,} x {plan.length:,} = ' if plan.epochs else ''
    run += f'{plan.iterations:,} iterations'
    if accumulated > 1:
        run += f', {-(-plan.iterations // accumulated):,} steps of the optimizer'
    batch = (
        f'{processes * size * accumulated} images a step: batch_size {size}, processes {processes}, '
        f'accumulative_counts {accumulated}'
    )
    model = f'{plan.parameters:,} parameters, {plan.parameters_deploy:,} in deploy form'
    data = f'{plan.samples:,} images'
    return text_table([('model', model), ('data', data), ('batch', batch), ('run', run)])


def _groups(plan: Plan) -> str:
    rows = [['group', 'parameters', 'lr', 'weight decay', 'tensors']]
    for index, group in enumerate(plan.groups, 1):
        rate, decay = group.settings['lr'], group.settings.get('weight_decay', 0)
        kinds = ', '.join(f'{kind} {number:,}' for kind, number in group.kinds.items())
        rows.append([str(index), f'{group.parameters:,}', f'{rate:.4g}', f'{decay:.4g}', kinds])
    text = text_table(rows)
    of_norms = [group.settings for group in plan.groups if 'norms' in group.kinds]
    if len({settings.get('weight_decay', 0) > 0 for settings in of_norms}) > 1:
        text += (
            '\nSome norms have weight decay, others have none: entries of paramwise_cfg.custom_keys '
            'switch norm_decay_mult off.'
        )
    return text


def _points(plan: Plan) -> str:
    columns = {}
    if plan.epochs:
        columns['epoch'] = [str(point.iteration // plan.length + 1) for point in plan.points]
    columns['iteration'] = [f'{point.iteration + 1:,}' for point in plan.points]
    for name, values in _series(plan, plan.points).items():
        columns[name] = ['off' if value is None else f'{value:.4g}' for value in values]
    return text_table([list(columns), *zip(*columns.values(), strict=True)])


def _measures(plan: Plan) -> str:
    rows = [['size', 'iterations', 'MMACs', 'deploy', 's/iteration', 'loading', 'memory', 'time']]
    total = 0.0
    for measure in plan.measures:
        cost, seconds = measure.cost, measure.cost.seconds * measure.iterations
        total += seconds
        counts = (measure.macs, measure.macs_deploy)
        rows.append([
            f'{cost.size[1]} x {cost.size[0]}', f'{measure.iterations:,}',
            *('?' if macs is None else f'{macs / 1e6:,.0f}' for macs in counts),
            f'{cost.seconds:.3g}', f'{cost.waited / cost.seconds:.0%}',
            '?' if cost.memory is None else f'{cost.memory / 2**30:.2f} GB', _duration(seconds),
        ])  # fmt: skip
    return (
        f'{text_table(rows)}\n'
        f'About {_duration(total)} on {plan.device}, from a few measured steps, without validation.'
    )


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))
