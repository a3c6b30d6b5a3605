"""Datasets appear whole or not at all, and are made once."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobileone_mm.errors import InputError

# To be raised whenever the same arguments give other images or files.
VERSION = 1
STAMP = 'synthetic.json'


def check_number(name: str, value: int, low: int, high: int) -> None:
    """Raises InputError unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f'{name}: got {value!r}; give a whole number from {low} to {high}')


def check_common(size: int, seed: int, **counts: int) -> None:
    """Raises InputError for an image's side, a seed or a number of images out of range."""
    check_number('size', size, 32, 4096)
    check_number('seed', seed, 0, 2**32 - 1)
    for name, count in counts.items():
        check_number(name, count, 1, 999_999)


def check_classes(classes: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises InputError unless `classes` names some of the known ones, none of them twice."""
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(known):
        raise InputError(f'classes: got {list(classes)}; give different names of {list(known)}')


def build_folder(root: str | Path, stamp: dict[str, Any], write: Callable[[Path], None]) -> Path:
    """Lets `write` fill a folder beside `root` and renames it to `root` at the end.

    Does nothing where `root` was made with the same stamp. Raises InputError where `root` is a
    file, holds something else, or was made with other arguments, and OSError where it cannot be
    written; whatever was there stays as it was.
    """
    root = Path(root).expanduser().resolve()
    stamp = {'generator': 'demo.generator', 'version': VERSION, **stamp}
    if _is_made(root, stamp):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    work = root.with_name(f'.{root.name}.{uuid.uuid4().hex[:12]}.tmp')
    work.mkdir()
    try:
        write(work)
        (work / STAMP).write_text(json.dumps(stamp, indent=1) + '\n', encoding='utf-8')
        _sync(work)
        try:
            os.replace(work, root)
        except OSError as error:
            # Another process may have made it in the meantime; the same thing is as good.
            if not _is_made(root, stamp):
                raise InputError(
                    f'root: {root} cannot be put in place ({error.strerror}); '
                    'give a folder that does not exist yet'
                ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root


def _is_made(root: Path, stamp: dict[str, Any]) -> bool:
    """Whether `root` holds this dataset; False where it is missing or empty."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise InputError(f'root: {root} is a file; give a new or empty folder')
    if not any(root.iterdir()):
        return False
    try:
        found = json.loads((root / STAMP).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get('generator') != stamp['generator']:
        raise InputError(
            f'root: {root} is not empty and not made by this generator; give a new or empty folder'
        )
    if found != stamp:
        differing = sorted(k for k in {*found, *stamp} if found.get(k) != stamp.get(k))
        raise InputError(
            f'root: {root} was made with other values of {", ".join(differing)}; '
            'delete it or give another folder'
        )
    return True


def _sync(folder: Path) -> None:
    """Brings every file to the disk, so that the rename cannot outrun its content."""
    for path in folder.rglob('*'):
        if path.is_file():
            with path.open('rb') as stream:
                os.fsync(stream.fileno())
