"""Tell faults that the user can correct from faults of the program."""

import re
import sys
import sysconfig
import traceback
from pathlib import Path

from .errors import InputError, one_line
from .files import REASONS

# torch's message for a feature map of 1 x 1 in a batch of one image.
_BN_OF_ONE = 'Expected more than 1 value per channel when training'
# mmseg's message, and torch's from the functions that make a batch.
_SIZES_DIFFER = re.compile(
    r'The image size in a batch should be the same|stack expects each tensor to be equal'
)
_MAKE_BATCHES = {'default_collate', 'stack_batch'}
# A worker of a data loader puts its traceback into the message; its last line has the error.
_WORKER_MARK = 'Original Traceback (most recent call last):'
_WORKER_LAST_LINE = re.compile(r'^(?:\w+\.)*\w+: (.*)$', re.MULTILINE)
_WORKER_FILE = re.compile(r'^  File "(.+)", line \d', re.MULTILINE)
# OpenCV's message for a side of 0 pixels; mmcv rounds the shorter side down.
_EMPTY_RESIZE = re.compile(r'inv_scale_[xy] > 0|!dsize\.empty\(\)')
_SHARED_MEMORY = re.compile(
    r'out of shared memory|insufficient shared memory|/torch_.*No space left'
)
_OS_ERROR_TEXT = re.compile(r'^\[Errno (\d+)\] [^:]*(?:: (.*))?$')
_PACKAGES = ('mobileone_mm', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')
_INSTALLED = {'site-packages', 'dist-packages'}
_LIBRARIES = ('<', str(sysconfig.get_path('stdlib')))


def user_fault(error: BaseException) -> str | None:
    """Return one line about a fault that the user can correct, or None for a fault of the program."""
    text = str(error)
    if isinstance(error, InputError):
        return [one_line(error), *_worker_lines(error)][-1]
    if isinstance(error, OSError):
        number, name = file_of(error)
        given = any(is_named(name, argument) for argument in sys.argv[1:])
        if number in REASONS and (given or not in_user_code(error)):
            return f"'{name}': {REASONS[number]}" if name else REASONS[number]
    if isinstance(error, ValueError) and _BN_OF_ONE in text:
        return (
            'train_dataloader.batch_size: BN cannot normalize one value per channel; set at least 2 '
            'images per process'
        )
    if isinstance(error, (AssertionError, RuntimeError)) and _makes_batch(error):
        return (
            'the images of a batch have different sizes; end the pipeline with a crop or a resize to '
            'one size, or set batch_size=1 in this dataloader'
        )
    if _EMPTY_RESIZE.search(text):
        return (
            'an image is so thin that resizing leaves no pixel of its shorter side; remove it, or use '
            'keep_ratio=False in Resize'
        )
    if type(error).__name__ == 'OutOfMemoryError':
        return 'the GPU is out of memory; lower the batch size (of the dataloader, or --batch-size)'
    if isinstance(error, RuntimeError) and _SHARED_MEMORY.search(text):
        return (
            'the shared memory (/dev/shm) is too small for the data-loader workers; enlarge it, or '
            'set num_workers=0 in the dataloaders'
        )
    return None


def any_fault(error: BaseException) -> str:
    """Return one line about any error; with its type if nobody wrote its message for a user."""
    text = one_line(error)
    named = text if isinstance(error, (OSError, ValueError)) else f'{type(error).__name__}: {text}'
    return user_fault(error) or named


def _makes_batch(error: BaseException) -> bool:
    """Return whether an error says that the images of a batch differ in size."""
    text = str(error)
    names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    names |= {name for name in _MAKE_BATCHES if f'in {name}' in text}  # of a worker
    differ = _SIZES_DIFFER.search(text)
    return bool(differ) and (
        isinstance(error, AssertionError) or not names.isdisjoint(_MAKE_BATCHES)
    )


def in_user_code(error: BaseException) -> bool:
    """Return whether a module of the user raised an error or called the library that raised it."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    if _WORKER_MARK in str(error):
        files += _WORKER_FILE.findall(str(error))
    modules = (sys.modules.get(name) for name in _PACKAGES)
    folders = [Path(str(module.__file__)).parent for module in modules if module is not None]
    folders += [Path(__file__).parents[1] / name for name in ('tools', 'demo')]
    for file in map(Path, reversed(files)):
        if any(folder in file.parents for folder in folders):
            return False
        if not str(file).startswith(_LIBRARIES) and _INSTALLED.isdisjoint(file.parts):
            return True
    return False


def file_of(error: OSError) -> tuple[int | None, str]:
    """Return the number of an error of the file system, also a worker's, and the name of the file."""
    lines = _worker_lines(error)
    if lines and (found := _OS_ERROR_TEXT.match(lines[-1])):
        return int(found[1]), (found[2] or '').strip("'")
    return error.errno, str(error.filename2 or error.filename or '')


def is_named(name: str, given: object) -> bool:
    """Return whether the name of a file is, or ends with, a string that the user has given."""
    return isinstance(given, str) and bool(name and given) and f'/{name}'.endswith(f'/{given}')


def _worker_lines(error: BaseException) -> list[str]:
    return _WORKER_LAST_LINE.findall(str(error)) if _WORKER_MARK in str(error) else []
