"""Whole files or none, also where mmengine does the writing."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..files import atomic_write


class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written under a temporary name first.

    mmengine opens the final name and writes: a full disk or a kill leaves half a checkpoint where
    the last good one was, or one that ``--resume`` then picks.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file in one step; the folder is made if needed."""
        atomic_write(filepath, lambda file: file.write(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text to a file in one step; the folder is made if needed."""
        atomic_write(filepath, lambda file: file.write(obj.encode(encoding)))


def use_atomic_files() -> None:
    """Make mmengine write checkpoints and results in this process in one step each."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')
