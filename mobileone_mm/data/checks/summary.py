"""The table of what a run gets from its datasets: images, objects or pixels, and what is left out."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_SHOWN = 12  # classes by name; of a longer list the most frequent and the rarest


@dataclass(frozen=True)
class SplitSummary:
    """What a run gets from one dataset."""

    path: str  # of the dataset in the config
    source: str  # the annotation file, or the folder
    unit: str  # what is counted by class: 'boxes' or 'pixels'
    counts: Mapping[str, int | str] = field(default_factory=dict)  # such as images: 118287
    left_out: Mapping[str, int] = field(default_factory=dict)  # by reason
    by_class: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the lines of the table."""
        counts = ', '.join(f'{name} {value}' for name, value in self.counts.items())
        lines = [f"  {self.path} ('{self.source}')", f'    {counts}']
        reasons = [f'{reason} {count}' for reason, count in self.left_out.items() if count]
        if reasons:
            lines.append(f'    {self.unit} left out: {", ".join(reasons)}')
        if self.by_class:
            lines.append(f'    {self.unit} by class: {_classes(self.by_class)}')
        return lines


class Labels(NamedTuple):
    """The numbers of the classes of which a dataset has images."""

    path: str  # of the dataset in the config
    source: Path
    numbers: Set[int]


def data_table(summaries: Sequence[SplitSummary]) -> str:
    """Return the table of all datasets; empty without one."""
    rows = [line for summary in summaries for line in summary.lines()]
    return '\n'.join(['Data:', *rows]) if rows else ''


def _classes(counts: Mapping[str, int]) -> str:
    if len(counts) <= _SHOWN:
        return ', '.join(f'{name} {count}' for name, count in counts.items())
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    first, last = ranked[: _SHOWN // 2], ranked[-_SHOWN // 2 :]
    parts = (', '.join(f'{name} {count}' for name, count in part) for part in (first, last))
    return f'{" ... ".join(parts)} ({len(counts)} classes)'
