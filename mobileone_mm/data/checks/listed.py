"""Read lists of files, and look for the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ...errors import InputError

# A look-up of every file of a large dataset on a network drive would take minutes.
MAX_LOOKUPS = 2000
_T = TypeVar('_T')


def read_list(path: str, file: Path) -> list[str]:
    """Read the lines of a dataset's ``ann_file`` that are not empty."""
    try:
        text = file.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise InputError(f"{path}.ann_file: '{file}' does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}.ann_file: '{file}' is not a readable list: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: the dataset is empty: '{file}' lists no image")
    return lines


def sparse(items: Sequence[_T]) -> Sequence[_T]:
    """Return all items, or about ``MAX_LOOKUPS`` evenly spaced ones of a long list."""
    return items[:: max(1, len(items) // MAX_LOOKUPS)]


def require_files(path: str, files: Sequence[Path], what: str) -> None:
    """Check that files exist (of a long list, a part); InputError names the first missing one."""
    files = sparse(files)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{path}: {what} '{missing[0]}' does not exist ({len(missing)} of {len(files)} checked "
            'files are missing)'
        )
