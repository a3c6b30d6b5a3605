"""Import this package first in child processes that start from nothing (spawn, forkserver).

A forked child inherits the stand-ins. A spawned child runs the main program and unpickles its task
in a fresh interpreter, and both may import a host.
"""

from multiprocessing import spawn
from typing import Any


def prepare_children() -> None:
    """Add the import of this package to the data that multiprocessing sends to a child.

    The child unpickles these data before it runs anything else.
    """
    original = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        return {**data, __package__: _Import(data['sys_path'])}

    spawn.get_preparation_data = get_preparation_data


class _Import:
    """Unpickles as an import of this package with the parent's ``sys.path``."""

    def __init__(self, sys_path: list[str]) -> None:
        self.code = f'import sys; sys.path[:] = {sys_path!r}; import {__package__}'

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code, {})
