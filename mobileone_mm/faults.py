"""Tell faults that the user can correct from faults of the program."""

from __future__ import annotations

import errno
import re

from .errors import InputError, one_line

# Errors of the file system that the user can correct.
_FILE_FAULTS = {
    errno.ENOSPC: 'the disk is full; free some space or choose another folder',
    errno.EDQUOT: 'the disk quota is used up; free some space or choose another folder',
    errno.EROFS: 'the file system is read-only; choose another folder',
    errno.EACCES: 'no permission',
    errno.EPERM: 'no permission',
    errno.ENOTDIR: 'a part of the path is a file, not a folder',
    errno.EISDIR: 'it is a folder; give a file',
    errno.ENOENT: 'no such file or folder',
    errno.EEXIST: 'a file of that name is in the way',
}
# torch's message for a feature map of 1 x 1 in a batch of one image.
_BN_OF_ONE = 'Expected more than 1 value per channel when training'
# A worker of a data loader puts its traceback into the message; its last line has the error.
_WORKER_MARK = 'Original Traceback (most recent call last):'
_WORKER_LAST_LINE = re.compile(r'^(?:\w+\.)*(\w+): (.*)$')
_SHARED_MEMORY = re.compile(
    r'out of shared memory|insufficient shared memory|/torch_.*No space left'
)
_OS_ERROR_TEXT = re.compile(r'^\[Errno (\d+)\] [^:]*(?:: (.*))?$')


def user_fault(error: BaseException) -> str | None:
    """Return one line about a fault that the user can correct, or None for a fault of the program."""
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
            'expected at least 2 images per process'
        )
    if type(error).__name__ == 'OutOfMemoryError':
        return 'the GPU is out of memory; lower the batch size (of the dataloader, or --batch-size)'
    if isinstance(error, RuntimeError) and _SHARED_MEMORY.search(str(error)):
        return (
            'the shared memory (/dev/shm) is too small for the data-loader workers; enlarge it, or '
            'set num_workers=0 in the dataloaders'
        )
    return None


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
