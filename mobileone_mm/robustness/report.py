"""Table and plot of the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..benchmark.tables import markdown_table
from ..files import atomic_write
from .corruptions import GROUPS, SEVERITIES
from .measures import ALEXNET_ERRORS, corruption_errors
from .records import Counts
from .sets import CORRUPTED, LAYOUTS, Evaluation

TITLES = {
    'clean': "config's test set",
    **{key: layout.title for key, layout in LAYOUTS.items()},
    'generated': 'generated corruptions',
}


def summarise(counts: Mapping[Evaluation, Counts], imagenet: bool) -> dict[str, Any]:
    """Compute accuracies and errors of all evaluations; ``imagenet`` says that it has those classes.

    Returns ``sets``: images, classes, top-1 and top-5 accuracy in percent by set. ``c`` and
    ``generated``, if evaluated: the least images and classes, ``errors`` in percent by corruption and
    severity, and the result of :func:`~mobileone_mm.robustness.measures.corruption_errors`.
    """
    result: dict[str, Any] = {'sets': {}}
    for evaluation, found in counts.items():
        if not evaluation.corruption:
            top = {key: 100 * getattr(found, key) / found.images for key in ('top1', 'top5')}
            accuracies = dict(images=found.images, classes=found.classes, **top)
            result['sets'][evaluation.set] = accuracies
    clean = counts.get(Evaluation('clean'))
    for name in CORRUPTED:
        errors: dict[str, dict[int, float]] = {}
        own = {evaluation: found for evaluation, found in counts.items() if evaluation.set == name}
        for evaluation, found in own.items():
            errors.setdefault(evaluation.corruption, {})[evaluation.severity] = found.error
        if own:
            images, classes = min((found.images, found.classes) for found in own.values())
            measures = corruption_errors(errors, clean.error if clean else None, imagenet)
            percent = {c: {s: 100 * e for s, e in by.items()} for c, by in errors.items()}
            result[name] = dict(images=images, classes=classes, errors=percent, **measures)
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
            *map(errors.get, severities),
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

    sets, corrupted = summary['sets'], [name for name in CORRUPTED if name in summary]
    bars = len(sets) > 1 or not corrupted
    figure = Figure(figsize=(16, 3.6 * (len(corrupted) + bars)), dpi=100)
    grid = figure.add_gridspec(len(corrupted) + bars, len(GROUPS))
    clean = {0: 100 - sets['clean']['top1']} if 'clean' in sets else {}
    for row, name in enumerate(corrupted):
        errors = summary[name]['errors']
        shown = [group for group, members in GROUPS.items() if any(m in errors for m in members)]
        for column, group in enumerate(shown):
            axes = figure.add_subplot(grid[row, column])
            for corruption in (member for member in GROUPS[group] if member in errors):
                points = sorted({**clean, **errors[corruption]}.items())
                axes.plot(*zip(*points, strict=True), marker='o', label=corruption)
            axes.set(title=f'{TITLES[name]}: {group}', xticks=[*clean, *SEVERITIES], ylim=(0, 100))
            axes.set_xlabel('severity (0: clean)' if clean else 'severity')
            axes.set_ylabel('' if column else 'top-1 error (%)')
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
    if bars:
        axes = figure.add_subplot(grid[-1, :])
        labels = [f'{TITLES[name]}\n{found["images"]} images' for name, found in sets.items()]
        drawn = axes.bar(labels, [found['top1'] for found in sets.values()], width=0.5)
        axes.bar_label(drawn, fmt='%.1f')
        axes.set(ylabel='top-1 accuracy (%)', ylim=(0, 100), xlim=(-1, max(len(sets), 4)))
    figure.tight_layout()
    atomic_write(path, lambda file: figure.savefig(file, format='png'))
