"""The result of an ablation: means over the seeds and paired differences, as a table and a plot."""

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..files import atomic_write
from .tables import markdown_table


def summarise(values: Mapping[str, Mapping[int, float]], metric: str) -> dict[str, Any]:
    """Compute mean and spread of each variant, and its paired differences from the first variant.

    ``values`` has the metric by variant and seed; every variant has the same seeds. Returns ``metric``,
    ``seeds``, ``reference`` (the first variant) and ``variants``: by name the ``values`` in the order
    of the seeds, ``mean`` and standard deviation ``std``. All variants except the reference also have
    ``difference`` (mean over the seeds), its standard ``error``, ``lowest`` and ``highest``. ``std``
    and ``error`` are None with one seed.
    """
    reference = next(iter(values))
    seeds = list(values[reference])
    several = len(seeds) > 1
    variants: dict[str, dict[str, Any]] = {}
    for name, by_seed in values.items():
        own = [by_seed[seed] for seed in seeds]
        variants[name] = dict(values=own, mean=mean(own), std=stdev(own) if several else None)
        if name != reference:
            pairs = [by_seed[seed] - values[reference][seed] for seed in seeds]
            error = stdev(pairs) / sqrt(len(pairs)) if several else None
            variants[name] |= dict(
                difference=mean(pairs), error=error, lowest=min(pairs), highest=max(pairs)
            )
    return {'metric': metric, 'seeds': seeds, 'reference': reference, 'variants': variants}


def table(summary: Mapping[str, Any]) -> list[str]:
    """Format a summary as the lines of a Markdown table."""
    count = len(summary['seeds'])
    rows = [['variant', 'mean ± std', 'difference ± standard error', 'lowest to highest']]
    for name, found in summary['variants'].items():
        row = [name, _with_spread(found['mean'], found['std'], '.2f'), '', '']
        if 'difference' in found:
            row[2] = _with_spread(found['difference'], found['error'], '+.2f')
            row[3] = f'{found["lowest"]:+.2f} to {found["highest"]:+.2f}'
        rows.append(row)
    title = (
        f'{summary["metric"]}, {count} {"seed" if count == 1 else "seeds"}; differences are to '
        f'"{summary["reference"]}" with the same seed'
    )
    return [title, '', *markdown_table(rows)]


def _with_spread(value: float, spread: float | None, form: str) -> str:
    return f'{value:{form}}' if spread is None else f'{value:{form}} ± {spread:.2f}'


def draw(summary: Mapping[str, Any], path: str | Path) -> None:
    """Draw each run as a point and the mean of each variant as a line, into a PNG file."""
    from matplotlib.figure import Figure

    variants = summary['variants']
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(variants)), dpi=110)
    axes = figure.add_subplot()
    reference = variants[summary['reference']]['mean']
    axes.axvline(reference, color='0.75', linestyle='--', linewidth=1, zorder=0)
    for row, found in enumerate(variants.values()):
        # A small offset keeps equal results apart.
        rows = [row + 0.06 * (index % 3 - 1) for index in range(len(found['values']))]
        axes.plot(found['values'], rows, 'o', color='C0', alpha=0.6, markersize=5)
        axes.plot([found['mean']] * 2, [row - 0.3, row + 0.3], color='C3', linewidth=2)
    axes.set_yticks(range(len(variants)), list(variants))
    axes.invert_yaxis()
    axes.set_xlabel(f'{summary["metric"]}: each run, and the mean of the variant')
    axes.grid(axis='x', alpha=0.3)
    figure.tight_layout()
    atomic_write(path, lambda file: figure.savefig(file, format='png'))
