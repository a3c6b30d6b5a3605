"""A JSON file whose list of records grows during a run."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import Any

from ..errors import InputError
from ..files import atomic_write, reason_of, write_all

# The end of the file while the run goes on, or after it was killed.
_UNFINISHED = {'unfinished': True}


class RecordFile:
    """A JSON object with a list that is written record by record, and is valid after each batch.

    json writes a file as a whole, and a run of hours that is killed would lose all of it. At the end
    the file is what ``json.dumps(..., indent=1)`` writes for the whole object. An earlier file of that
    name stays until there is a first record.

    Args:
        path: The file.
        key: The name of the list in the object.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key, self.count = path, key, 0
        self._file: Any = None
        self._end, self._tail = 0, b''  # where the list ends, and what follows there

    def add(self, records: Sequence[Mapping[str, Any]], head: Mapping[str, Any]) -> None:
        """Append records; only the first call writes ``head``, which comes before the list.

        InputError if the file cannot be written; it then has the records of the calls before.
        """
        if not records:
            return
        rows = ',\n'.join(indent(_text(record), '  ') for record in records)
        if self._file is None:
            start = _text({**head, self.key: []}).removesuffix(']\n}')
            self._begin(f'{start}\n{rows}'.encode())
        else:
            self._replace_tail(f',\n{rows}'.encode(), _UNFINISHED)
        self.count += len(records)

    def finish(self, rest: Mapping[str, Any]) -> None:
        """Write what comes after the list, and close the file; nothing if there is no record."""
        if self._file is not None:
            try:
                self._replace_tail(b'', rest)
            finally:
                self._file.close()
                self._file = None

    def _begin(self, content: bytes) -> None:
        self._end, self._tail = len(content), _tail(_UNFINISHED)
        atomic_write(self.path, content + self._tail)
        # Without a buffer: the records are in the file when a call returns.
        self._file = self.path.open('r+b', buffering=0)

    def _replace_tail(self, content: bytes, rest: Mapping[str, Any]) -> None:
        tail = _tail(rest)
        try:
            self._put(content + tail)
        except BaseException as error:
            with suppress(OSError):
                self._put(self._tail)  # needs no more space, and the file is valid again
            if isinstance(error, OSError):
                raise InputError(f"cannot write '{self.path}': {reason_of(error)}") from error
            raise
        self._end, self._tail = self._end + len(content), tail

    def _put(self, content: bytes) -> None:
        self._file.seek(self._end)
        write_all(self._file, content)
        self._file.truncate()
        os.fsync(self._file.fileno())


def _text(value: Any) -> str:
    return json.dumps(value, indent=1)


def _tail(rest: Mapping[str, Any]) -> bytes:
    return f'\n ],{_text(rest)[1:]}\n'.encode()
