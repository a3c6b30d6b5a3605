"""Table and plot of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import atomic_write
from .corruptions import GROUPS, SEVERITIES
from .layouts import LAYOUTS
from .measures import ALEXNET_ERRORS, corruption_errors
from .records import Counts

CORRUPTED = ('c', 'generated')
TITLES = {
    'clean': "config's test set",
    **{key: layout.title for key, layout in LAYOUTS.items()},
    'generated': 'generated corruptions',
}


def summarise(counts: Mapping[tuple[str, str, int], Counts], imagenet: bool) -> dict[str, Any]:
    """Accuracies and errors of all evaluations.

    Args:
        counts: By set, corruption and severity; the last two ``''`` and 0 where there is none.
        imagenet: Whether the model has ImageNet's 1000 classes.

    Returns:
        ``sets``: images, classes, top-1 and top-5 accuracy in percent by set. ``c`` and
        ``generated``, where evaluated: ``errors`` in percent by corruption and severity, and what
        :func:`~mobileone_mm.robustness.measures.corruption_errors` gives.
    """
    result: dict[str, Any] = {'sets': {}}
    clean = counts.get(('clean', '', 0))
    for (name, corruption, _), found in counts.items():
        if not corruption:
            result['sets'][name] = {
                'images': found.images,
                'classes': found.classes,
                'top1': 100 * found.top1 / found.images,
                'top5': 100 * found.top5 / found.images,
            }
    for name in CORRUPTED:
        errors: dict[str, dict[int, float]] = {}
        sizes = set()
        for (owner, corruption, severity), found in counts.items():
            if owner == name:
                errors.setdefault(corruption, {})[severity] = found.error
                sizes.add((found.images, found.classes))
        if errors:
            measures = corruption_errors(errors, clean.error if clean else None, imagenet)
            percent = {c: {s: 100 * e for s, e in by.items()} for c, by in errors.items()}
            images, classes = min(sizes)
            result[name] = {'images': images, 'classes': classes, 'errors': percent, **measures}
    return result


def table(summary: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines = []
    if summary['sets']:
        lines += ['| set | classes | images | top-1 | top-5 |', '| --- | --- | --- | --- | --- |']
        for name, found in summary['sets'].items():
            lines.append(
                f'| {TITLES[name]} | {found["classes"]} | {found["images"]} | '
                f'{found["top1"]:.2f} | {found["top5"]:.2f} |'
            )
    for name in CORRUPTED:
        if name in summary:
            lines += ['', *_corruption_table(name, summary[name])]
    return '\n'.join(lines).strip() + '\n'


def _corruption_table(name: str, found: Mapping[str, Any]) -> list[str]:
    severities = [s for s in SEVERITIES if any(s in by for by in found['errors'].values())]
    columns = [*map(str, severities), 'mean', 'AlexNet', 'CE', 'relative CE']
    lines = [
        f'Top-1 error in percent, {TITLES[name]}: {found["images"]} images of {found["classes"]} '
        'classes for each corruption and severity',
        '',
        f'| corruption | {" | ".join(columns)} |',
        f'|{" --- |" * (len(columns) + 1)}',
    ]
    for corruption, errors in found['errors'].items():
        alexnet = 100 * sum(ALEXNET_ERRORS[corruption]) / len(SEVERITIES)
        normalised = corruption in found['ce']
        values = [*(errors.get(s) for s in severities), found['mean_error'][corruption],
                  alexnet if normalised else None, found['ce'].get(corruption),
                  found['relative_ce'].get(corruption)]  # fmt: skip
        lines.append(f'| {corruption} | {" | ".join(_number(value) for value in values)} |')
    # AlexNet's errors are those on other images than the generated ones.
    other = ', not a published mCE' if name == 'generated' else ''
    labels = {
        'unnormalised_mce': 'mean of the errors (un-normalised)',
        'mce': f"mCE (by AlexNet's errors{other})",
        'relative_mce': 'relative mCE',
    }
    measures = [f'{label}: {found[key]:.1f}' for key, label in labels.items() if key in found]
    return [*lines, '', '; '.join(measures)] if measures else lines


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.1f}'


def plot(summary: Mapping[str, Any], path: str | Path) -> None:
    """Draw error against severity for each group of corruptions, and the accuracies of the sets.

    Args:
        summary: What :func:`summarise` gave.
        path: A PNG file.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    corrupted = [name for name in CORRUPTED if name in summary]
    bars = len(summary['sets']) > 1 or not corrupted
    figure = Figure(figsize=(16, 3.6 * (len(corrupted) + bars)), dpi=100)
    grid = figure.add_gridspec(len(corrupted) + bars, len(GROUPS))
    for row, name in enumerate(corrupted):
        clean = summary['sets'].get('clean')
        drawn = {
            group: members
            for group, members in GROUPS.items()
            if any(member in summary[name]['errors'] for member in members)
        }
        for column, (group, members) in enumerate(drawn.items()):
            axes = figure.add_subplot(grid[row, column])
            _lines(axes, summary[name]['errors'], members, clean)
            axes.set_title(f'{TITLES[name]}: {group}')
            if column == 0:
                axes.set_ylabel('top-1 error (%)')
    if bars:
        _bars(figure.add_subplot(grid[-1, :]), summary['sets'])
    figure.tight_layout()
    atomic_write(path, lambda file: figure.savefig(file, format='png'))


def _lines(axes: Any, errors: Mapping, members: Sequence[str], clean: Mapping | None) -> None:
    for name in members:
        if name in errors:
            points = dict(errors[name])
            if clean is not None:
                points[0] = 100 - clean['top1']
            order = sorted(points)
            axes.plot(order, [points[s] for s in order], marker='o', label=name)
    axes.set_xticks([0, *SEVERITIES] if clean is not None else SEVERITIES)
    axes.set_xlabel('severity (0: clean)' if clean is not None else 'severity')
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)


def _bars(axes: Any, sets: Mapping[str, Any]) -> None:
    labels = [f'{TITLES[name]}\n{found["images"]} images' for name, found in sets.items()]
    bars = axes.bar(labels, [found['top1'] for found in sets.values()], width=0.5)
    axes.bar_label(bars, fmt='%.1f')
    axes.set_ylabel('top-1 accuracy (%)')
    axes.set_ylim(0, 100)
    axes.set_xlim(-1, max(len(sets), 4))
