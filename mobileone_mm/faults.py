"""Tell faults that the user can correct from faults of the program."""

from __future__ import annotations

import re

from .errors import InputError, one_line
from .files import REASONS

# torch's message for a feature map of 1 x 1 in a batch of one image.
_BN_OF_ONE = 'Expected more than 1 value per channel when training'
# A worker of a data loader puts its traceback into the message; its last line has the error.
_WORKER_MARK = 'Original Traceback (most recent call last):'
_WORKER_LAST_LINE = re.compile(r'^(?:\w+\.)*\w+: (.*)$', re.MULTILINE)
_SHARED_MEMORY = re.compile(
    r'out of shared memory|insufficient shared memory|/torch_.*No space left'
)
_OS_ERROR_TEXT = re.compile(r'^\[Errno (\d+)\] [^:]*(?:: (.*))?$')


def user_fault(error: BaseException) -> str | None:
    """Return one line about a fault that the user can correct, or None for a fault of the program."""
    text = str(error)
    in_worker = _WORKER_LAST_LINE.findall(text) if _WORKER_MARK in text else []
    if isinstance(error, InputError):
        return in_worker[-1] if in_worker else one_line(error)
    if isinstance(error, OSError):
        number, name = error.errno, error.filename2 or error.filename
        if in_worker and (found := _OS_ERROR_TEXT.match(in_worker[-1])):
            number, name = int(found[1]), (found[2] or '').strip("'")
        if number in REASONS:
            return f"'{name}': {REASONS[number]}" if name else REASONS[number]
    if isinstance(error, ValueError) and _BN_OF_ONE in text:
        return (
            'train_dataloader.batch_size: BN cannot normalize one value per channel; set at least 2 '
            'images per process'
        )
    if type(error).__name__ == 'OutOfMemoryError':
        return 'the GPU is out of memory; lower the batch size (of the dataloader, or --batch-size)'
    if isinstance(error, RuntimeError) and _SHARED_MEMORY.search(text):
        return (
            'the shared memory (/dev/shm) is too small for the data-loader workers; enlarge it, or '
            'set num_workers=0 in the dataloaders'
        )
    return None
