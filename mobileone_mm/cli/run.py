"""Arguments, exit codes and error lines of the tools."""

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import torch.distributed as dist

from ..errors import ProofError, one_line
from ..faults import user_fault

Main = Callable[[list[str] | None], int | None]


class ToolParser(argparse.ArgumentParser):
    """Reports errors in one line and accepts no abbreviated flags, which may be mistyped ones."""

    def __init__(self, **kwargs: Any) -> None:
        kind = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=kind, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}; see {self.prog} --help\n')


def run_tool(main: Main) -> NoReturn:
    """Run a tool's ``main`` and end the process with its exit code.

    Exit codes: 0 done; 1 a proof of equality failed and nothing was written; 2 bad input, with one
    line on stderr; 130 interrupted by the user. Faults of the program keep their traceback; with the
    environment variable ``MOBILEONE_MM_TRACEBACK`` all errors do.
    """
    # With a full disk a log handler would print a traceback for every record. The file that the tool
    # writes reports the full disk once.
    logging.raiseExceptions = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file need not be UTF-8; to print it must not be an error at the end of a run.
        sys.stdout.reconfigure(errors='backslashreplace')
    code = call_tool(main)
    with suppress(OSError):
        sys.stdout.flush()
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        # torchrun started this process. Threads of gloo can outlive their group, and a usual exit then
        # aborts with "terminate called without an active exception" after the work is done.
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def call_tool(main: Main, argv: list[str] | None = None) -> int:
    """Run a tool's ``main`` in this process and return its exit code, as :func:`run_tool` does."""
    try:
        return main(argv) or 0
    except BrokenPipeError:
        # The reader of our output closed it (`| head`); Python would report that again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if _is_interrupt(error):
            code, message = 130, 'interrupted'
        elif isinstance(error, ProofError):
            code, message = 1, one_line(error)
        elif fault := user_fault(error):
            code, message = 2, fault
        else:
            raise
        if os.environ.get('MOBILEONE_MM_TRACEBACK'):
            traceback.print_exc()
        # Before the processes join a group each finds the same fault; one line is enough.
        joined = dist.is_available() and dist.is_initialized()
        if joined or os.environ.get('LOCAL_RANK', '0') == '0':
            print(f'error: {message}', file=sys.stderr, flush=True)
        return code


def _is_interrupt(error: BaseException | None) -> bool:
    """Return whether Ctrl-C caused an error; a bare `except:` in mmengine raises another one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
