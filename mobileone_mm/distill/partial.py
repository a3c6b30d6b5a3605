"""The rows of a view that is being stored, so that an interrupted call goes on with them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from ..errors import InputError
from ..files import reason_of, write_all
from .stored import OutputsMeta


class PartialView:
    """The file ``view_NNNN.part``: a line with the settings, then rows in the order of the batches.

    A view takes hours. Its own files have a checksum and are written at its end; this one grows with
    each batch, so that a crash, a full disk or an interrupt loses one batch. It does not exist before
    the first batch. A row that is not complete is dropped, and another file of that name overwritten.
    Use it in a ``with`` statement, which closes the file and says after an error what it has.

    Args:
        path: The file with the rows of the view, ``view_NNNN.npy``.
        rows: The rows of all images; those that are stored already are filled in.
        meta: What the rows are made from.

    Raises:
        InputError: The file cannot be read, or its rows were made from something else.
    """

    def __init__(self, path: Path, rows: np.ndarray, meta: OutputsMeta) -> None:
        self.path, self.rows = part_path(path), rows
        self._head = json.dumps(asdict(meta)).encode() + b'\n'
        found = np.empty(0, rows.dtype)
        start = check_part(path, meta)
        if start:
            found = np.fromfile(self.path, rows.dtype, offset=start)
            # After a power cut, a file can have blocks that were not written.
            known = np.isin(found['key'], rows['key'])
            found = found[: len(known) if known.all() else int(known.argmin())]
            rows[np.searchsorted(rows['key'], found['key'])] = found
        self.keys = set(found['key'].tolist())
        self._size = start + found.nbytes  # of what stays
        self._file: Any = None

    def add(self, rows: np.ndarray) -> None:
        """Append the rows of a batch; InputError if they cannot be written."""
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open('ab', buffering=0)
                self._file.truncate(self._size)
                if not self._size:
                    write_all(self._file, self._head)
            write_all(self._file, rows.tobytes())
        except OSError as error:
            raise InputError(f"cannot write '{self.path}': {reason_of(error)}") from error
        self.keys.update(rows['key'].tolist())

    def __enter__(self) -> 'PartialView':
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if kind is not None and self.keys:
            done = f'{len(self.keys)} of {len(self.rows)} images'
            print_log(f"'{self.path}' has {done}; repeat the call to continue", 'current')


def part_path(path: Path) -> Path:
    """Return the partial file that belongs to a file of rows."""
    return path.with_suffix('.part')


def check_part(path: Path, meta: OutputsMeta) -> int:
    """Return where the rows of a partial file begin, 0 without one; InputError for other settings."""
    part = part_path(path)
    try:
        with part.open('rb') as file:
            head = file.readline()
        found = OutputsMeta(**json.loads(head))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise InputError(f"outputs '{part}': cannot be read: {reason_of(error)}") from error
    except (ValueError, TypeError):
        return 0  # its first line was not complete
    found.check(part, **asdict(meta))
    return len(head)
