"""Takes the stand-ins along into child processes that start from nothing (spawn, forkserver).

A forked child inherits them. A spawned one unpickles its task in a fresh interpreter, and the
first dataset in it imports a host before anybody had a chance to import this package.
"""

from __future__ import annotations

from multiprocessing import context
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any


def carry_over() -> None:
    """Make a pickled process import this package before it unpickles its task.

    Covers the classes that contexts, pools, executors and data loaders use. A subclass of one
    pickles in its own way and imports what it needs itself.
    """
    for name in ('Process', 'SpawnProcess', 'ForkServerProcess'):
        kind = getattr(context, name, None)  # some do not exist on some systems
        if kind is not None:
            ForkingPickler.register(kind, _reduce)


def _reduce(process: BaseProcess) -> tuple[Any, ...]:
    # The first element is what an unpickler resolves first: doing so imports this package.
    return new_process, (type(process),), vars(process)


def new_process(kind: type[BaseProcess]) -> BaseProcess:
    """Empty process object, to be filled with its pickled state."""
    return kind.__new__(kind)
