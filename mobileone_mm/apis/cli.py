"""Arguments, exit codes and error lines of the tools."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from ..errors import InputError, ProofError

Main = Callable[[list[str] | None], int | None]

EXIT_PROOF = 1
EXIT_INPUT = 2
EXIT_INTERRUPT = 130
EXIT_PIPE = 141

# Errors of the file system that say what the user can change; they keep their file name.
_FILE_FAULTS = {
    errno.ENOSPC: 'the disk is full; free some space or choose another folder',
    errno.EDQUOT: 'the disk quota is used up; free some space or choose another folder',
    errno.EROFS: 'the file system is read-only; choose another folder',
    errno.EACCES: 'no permission',
    errno.EPERM: 'no permission',
    errno.ENOTDIR: 'a part of the path is a file, not a folder',
    errno.EISDIR: 'it is a folder, a file is needed',
    errno.ENOENT: 'no such file or folder',
    errno.EEXIST: 'a file of that name is in the way',
}
# torch's message where a map of one cell meets a batch of one picture.
_BN_OF_ONE = 'Expected more than 1 value per channel when training'
# The last line of the traceback that a data-loader worker sends home inside its message.
_WORKER_MARK = 'Original Traceback (most recent call last):'
_WORKER_LAST_LINE = re.compile(r'^(?:\w+\.)*(\w+): (.*)$')
_SHARED_MEMORY = re.compile(
    r'out of shared memory|insufficient shared memory|/torch_.*No space left'
)
_OS_ERROR_TEXT = re.compile(r'^\[Errno (\d+)\] [^:]*(?:: (.*))?$')


class ToolParser(argparse.ArgumentParser):
    """argparse with errors of one line, and flags that must be spelled out.

    A mistyped flag is an error, not an abbreviation of another one.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}; see {self.prog} --help\n')


def run_tool(main: Main) -> NoReturn:
    """Run a tool's ``main`` and end the process with its exit code.

    Exit codes: 0 done; 1 a proof of equality failed and nothing was written; 2 bad input, with one
    line on stderr; 130 interrupted by the user. Faults of the program itself keep their traceback;
    with the environment variable ``MOBILEONE_MM_TRACEBACK`` set, all do.
    """
    # A handler that cannot write its log file would print a traceback for every record; the full
    # disk is reported once, in one line, by the file that matters.
    logging.raiseExceptions = False
    code = call_tool(main)
    with suppress(OSError):
        sys.stdout.flush()
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        # torchrun started this process. gloo's threads may outlive its group, and the interpreter's
        # own way out then aborts ("terminate called without an active exception") after all is done.
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def call_tool(main: Main, argv: list[str] | None = None) -> int:
    """Run a tool's ``main`` in this process and return its exit code, as :func:`run_tool` does.

    Raises:
        SystemExit: The arguments do not parse (code 2), or help was asked for (code 0).
    """
    try:
        return main(argv) or 0
    except KeyboardInterrupt:
        _report('interrupted')
        return EXIT_INTERRUPT
    except BrokenPipeError:
        # The reader of our output went away (`| head`); Python would complain again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:
        if _is_interrupt(error):
            _report('interrupted')
            return EXIT_INTERRUPT
        if isinstance(error, ProofError):
            _report(one_line(error))
            return EXIT_PROOF
        message = user_fault(error)
        if message is None:
            raise
        _report(message)
        return EXIT_INPUT


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error came of Ctrl-C, of which a bare `except:` (mmengine's config) makes others."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def user_fault(error: BaseException) -> str | None:
    """One line about a fault that the user can mend, or None for a fault of the program.

    Errors that come out of a data-loader worker arrive with the worker's traceback in their
    message; the line is taken from its end.
    """
    kind, message = _of_worker(error)
    if isinstance(error, InputError):
        return message or one_line(error)
    if isinstance(error, OSError):
        if kind is not None:
            return _worker_file_fault(message)
        if error.errno in _FILE_FAULTS:
            name = error.filename2 or error.filename
            return f"'{name}': {_FILE_FAULTS[error.errno]}" if name else _FILE_FAULTS[error.errno]
    if isinstance(error, ValueError) and _BN_OF_ONE in str(error):
        return (
            'train_dataloader.batch_size: BN got one value per channel, which it cannot normalise; '
            'at least 2 pictures a process are needed'
        )
    if type(error).__name__ == 'OutOfMemoryError':
        return 'the GPU is out of memory; lower the batch size (of the dataloader, or --batch-size)'
    if isinstance(error, RuntimeError) and _SHARED_MEMORY.search(str(error)):
        return (
            'the shared memory (/dev/shm) is too small for the data-loader workers; enlarge it, or '
            'set num_workers=0 in the dataloaders'
        )
    return None


def one_line(error: BaseException) -> str:
    """The message of an error on one line; a KeyError without the quotes that Python adds."""
    text = error.args[0] if len(error.args) == 1 and isinstance(error, KeyError) else error
    return ' '.join(str(text).split()) or type(error).__name__


def _of_worker(error: BaseException) -> tuple[str | None, str]:
    text = str(error)
    if _WORKER_MARK not in text:
        return None, ''
    for line in reversed(text.splitlines()):
        found = _WORKER_LAST_LINE.match(line)
        if found:
            return found.group(1), found.group(2)
    return None, ''


def _worker_file_fault(message: str) -> str | None:
    found = _OS_ERROR_TEXT.match(message)
    if found is None or int(found.group(1)) not in _FILE_FAULTS:
        return None
    reason = _FILE_FAULTS[int(found.group(1))]
    return f'{found.group(2)}: {reason}' if found.group(2) else reason


def _report(message: str) -> None:
    if os.environ.get('MOBILEONE_MM_TRACEBACK'):
        traceback.print_exc()
    if _another_process_reports():
        return
    print(f'error: {message}', file=sys.stderr, flush=True)


def _another_process_reports() -> bool:
    # Before the processes are joined each finds the same fault by itself: one line is enough.
    import torch.distributed as dist

    joined = dist.is_available() and dist.is_initialized()
    return not joined and os.environ.get('LOCAL_RANK', '0') != '0'
