"""What an ablation found: means over the seeds, differences by pairs, as a table and a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..files import atomic_write


def summarise(values: Mapping[str, Mapping[int, float]], metric: str) -> dict[str, Any]:
    """Mean and spread of each variant, and its differences from the first one, seed by seed.

    Args:
        values: The metric by variant and seed; the same seeds for all.
        metric: Its name.

    Returns:
        ``metric``, ``seeds``, ``reference`` (the first variant) and ``variants``: by name the
        ``values`` in the order of the seeds, their ``mean`` and standard deviation ``std``; but for
        the reference also ``difference`` (mean over the pairs), its standard error ``error``, and its
        ``lowest`` and ``highest``. Spreads of one seed are None.
    """
    reference = next(iter(values))
    seeds = list(values[reference])
    variants: dict[str, dict[str, Any]] = {}
    for name, by_seed in values.items():
        own = [by_seed[seed] for seed in seeds]
        variants[name] = {'values': own, 'mean': mean(own), 'std': _spread(own)}
        if name != reference:
            pairs = [by_seed[seed] - values[reference][seed] for seed in seeds]
            spread = _spread(pairs)
            variants[name] |= {
                'difference': mean(pairs),
                'error': None if spread is None else spread / sqrt(len(pairs)),
                'lowest': min(pairs),
                'highest': max(pairs),
            }
    return {'metric': metric, 'seeds': seeds, 'reference': reference, 'variants': variants}


def _spread(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def table(summary: Mapping[str, Any]) -> list[str]:
    """The lines of a Markdown table of a summary."""
    count = len(summary['seeds'])
    lines = [
        f'{summary["metric"]}, {count} {"seed" if count == 1 else "seeds"}; differences are those of '
        f'pairs of one seed from "{summary["reference"]}"',
        '',
        '| variant | mean ± std | difference ± standard error | lowest to highest |',
        '| --- | --- | --- | --- |',
    ]
    for name, found in summary['variants'].items():
        own = _with_spread(found['mean'], found['std'], '.2f')
        if 'difference' in found:
            difference = _with_spread(found['difference'], found['error'], '+.2f')
            reach = f'{found["lowest"]:+.2f} to {found["highest"]:+.2f}'
        else:
            difference = reach = ''
        lines.append(f'| {name} | {own} | {difference} | {reach} |')
    return lines


def _with_spread(value: float, spread: float | None, form: str) -> str:
    return f'{value:{form}}' if spread is None else f'{value:{form}} ± {spread:.2f}'


def draw(summary: Mapping[str, Any], path: str | Path) -> None:
    """Draw every run as a point and the mean of each variant as a line.

    Args:
        summary: What :func:`summarise` gave.
        path: A PNG file.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    variants = summary['variants']
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(variants)), dpi=110)
    axes = figure.add_subplot()
    reference = variants[summary['reference']]['mean']
    axes.axvline(reference, color='0.75', linestyle='--', linewidth=1, zorder=0)
    for row, found in enumerate(variants.values()):
        # A little apart, so that equal results can be told.
        rows = [row + 0.06 * (index % 3 - 1) for index in range(len(found['values']))]
        axes.plot(found['values'], rows, 'o', color='C0', alpha=0.6, markersize=5)
        axes.plot([found['mean']] * 2, [row - 0.3, row + 0.3], color='C3', linewidth=2)
    axes.set_yticks(range(len(variants)), list(variants))
    axes.invert_yaxis()
    axes.set_xlabel(f'{summary["metric"]}: each run, and the mean of the variant')
    axes.grid(axis='x', alpha=0.3)
    figure.tight_layout()
    atomic_write(path, lambda file: figure.savefig(file, format='png'))
