"""Tables of results: as text for a terminal, and as Markdown."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def text_table(rows: Sequence[Sequence[str]], numbers_from: int = 99) -> str:
    """Lay out rows in columns; the first row holds the headings.

    From the column ``numbers_from`` on cells are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, heading in enumerate(rows[0]):
        table.add_column(heading, justify='right' if index >= numbers_from else 'left')
    for row in rows[1:]:
        table.add_row(*row)
    file = io.StringIO()
    # Plain text: no color of a terminal, and no markup or emoji in names.
    console = Console(file=file, width=1000, color_system=None, markup=False, emoji=False)
    console.print(table, highlight=False)
    return '\n'.join(line.rstrip() for line in file.getvalue().rstrip().splitlines())


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as the lines of a Markdown table; the first row holds the headings."""
    header, *body = (f'| {" | ".join(row)} |' for row in rows)
    return [header, f'|{" --- |" * len(rows[0])}', *body]
