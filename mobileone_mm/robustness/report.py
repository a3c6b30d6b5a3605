"""Table and plot of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..benchmark.tables import markdown_table
from ..files import atomic_write
from .corruptions import GROUPS, SEVERITIES
from .measures import ALEXNET_ERRORS, corruption_errors
from .records import Counts
from .sets import CORRUPTED, LAYOUTS

TITLES = {
    'clean': "config's test set",
    **{key: layout.title for key, layout in LAYOUTS.items()},
    'generated': 'generated corruptions',
}


def summarise(counts: Mapping[tuple[str, str, int], Counts], imagenet: bool) -> dict[str, Any]:
    """Compute accuracies and errors of all evaluations.

    Args:
        counts: By set, corruption and severity; ``''`` and 0 stand for no corruption.
        imagenet: Whether the model has the 1000 classes of ImageNet.

    Returns:
        ``sets``: images, classes, top-1 and top-5 accuracy in percent by set. ``c`` and
        ``generated``, if evaluated: ``errors`` in percent by corruption and severity, and the
        result of :func:`~mobileone_mm.robustness.measures.corruption_errors`.
    """
    result: dict[str, Any] = {'sets': {}}
    clean = counts.get(('clean', '', 0))
    errors: dict[str, dict[str, dict[int, float]]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for (name, corruption, severity), found in counts.items():
        if corruption:
            errors.setdefault(name, {}).setdefault(corruption, {})[severity] = found.error
            size = dict(images=found.images, classes=found.classes)
            sizes[name] = min(size, sizes.get(name, size), key=lambda known: tuple(known.values()))
        else:
            accuracies = {k: 100 * getattr(found, k) / found.images for k in ('top1', 'top5')}
            result['sets'][name] = dict(images=found.images, classes=found.classes, **accuracies)
    for name in (name for name in CORRUPTED if name in errors):
        measures = corruption_errors(errors[name], clean.error if clean else None, imagenet)
        percent = {c: {s: 100 * e for s, e in by.items()} for c, by in errors[name].items()}
        result[name] = {**sizes[name], 'errors': percent, **measures}
    return result


def table(summary: Mapping[str, Any]) -> str:
    """Format the results as Markdown."""
    lines = []
    if summary['sets']:
        rows = [['set', 'classes', 'images', 'top-1', 'top-5']]
        for name, found in summary['sets'].items():
            numbers = f'{found["classes"]}', f'{found["images"]}'
            rows.append([TITLES[name], *numbers, f'{found["top1"]:.2f}', f'{found["top5"]:.2f}'])
        lines += markdown_table(rows)
    for name in CORRUPTED:
        if name in summary:
            lines += ['', *_corruption_table(name, summary[name])]
    return '\n'.join(lines).strip() + '\n'


def _corruption_table(name: str, found: Mapping[str, Any]) -> list[str]:
    severities = [s for s in SEVERITIES if any(s in by for by in found['errors'].values())]
    rows = [['corruption', *map(str, severities), 'mean', 'AlexNet', 'CE', 'relative CE']]
    for corruption, errors in found['errors'].items():
        alexnet = 100 * sum(ALEXNET_ERRORS[corruption]) / len(SEVERITIES)
        values = [
            *(errors.get(severity) for severity in severities),
            found['mean_error'][corruption],
            alexnet if corruption in found['ce'] else None,
            found['ce'].get(corruption),
            found['relative_ce'].get(corruption),
        ]
        rows.append([corruption, *('' if value is None else f'{value:.1f}' for value in values)])
    title = (
        f'Top-1 error in percent, {TITLES[name]}: {found["images"]} images of {found["classes"]} '
        'classes for each corruption and severity'
    )
    # The errors of AlexNet are those on the published images.
    other = ', not a published mCE' if name == 'generated' else ''
    labels = {
        'unnormalised_mce': 'mean of the errors (un-normalised)',
        'mce': f'mCE (by the errors of AlexNet{other})',
        'relative_mce': 'relative mCE',
    }
    measures = [f'{label}: {found[key]:.1f}' for key, label in labels.items() if key in found]
    return [title, '', *markdown_table(rows), *(['', '; '.join(measures)] if measures else [])]


def plot(summary: Mapping[str, Any], path: str | Path) -> None:
    """Draw error over severity for each group of corruptions, and accuracies of the sets, as PNG."""
    from matplotlib.figure import Figure

    corrupted = [name for name in CORRUPTED if name in summary]
    bars = len(summary['sets']) > 1 or not corrupted
    figure = Figure(figsize=(16, 3.6 * (len(corrupted) + bars)), dpi=100)
    grid = figure.add_gridspec(len(corrupted) + bars, len(GROUPS))
    for row, name in enumerate(corrupted):
        errors = summary[name]['errors']
        shown = [group for group, members in GROUPS.items() if any(m in errors for m in members)]
        for column, group in enumerate(shown):
            axes = figure.add_subplot(grid[row, column])
            _lines(axes, errors, GROUPS[group], summary['sets'].get('clean'))
            axes.set_title(f'{TITLES[name]}: {group}')
            if column == 0:
                axes.set_ylabel('top-1 error (%)')
    if bars:
        axes, sets = figure.add_subplot(grid[-1, :]), summary['sets']
        labels = [f'{TITLES[name]}\n{found["images"]} images' for name, found in sets.items()]
        drawn = axes.bar(labels, [found['top1'] for found in sets.values()], width=0.5)
        axes.bar_label(drawn, fmt='%.1f')
        axes.set(ylabel='top-1 accuracy (%)', ylim=(0, 100), xlim=(-1, max(len(sets), 4)))
    figure.tight_layout()
    atomic_write(path, lambda file: figure.savefig(file, format='png'))


def _lines(axes: Any, errors: Mapping, members: Sequence[str], clean: Mapping | None) -> None:
    start = {} if clean is None else {0: 100 - clean['top1']}
    for name in members:
        if name in errors:
            points = sorted({**start, **errors[name]}.items())
            axes.plot(*zip(*points, strict=True), marker='o', label=name)
    label = 'severity (0: clean)' if start else 'severity'
    axes.set(xticks=[*start, *SEVERITIES], xlabel=label, ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
