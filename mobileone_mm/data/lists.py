"""Lists as the hosts read them: text files with a name in each line, and class lists of a config.

The hosts read a file with mmengine's ``list_from_file``. It keeps a byte order mark, empty lines and
spaces at the ends of a line, and each becomes a class or a part of a name. They take any class list
whose items they can count: the string ``'person'``, if no file has this name, is six classes.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from mmengine.logging import print_log

from ..errors import InputError

# The names of ImageNet as published are not unique: two classes are called 'crane'.
_IMAGENET = 1000
_T = TypeVar('_T')


def spread(items: Sequence[_T], most: int) -> Sequence[_T]:
    """Return at most ``most`` items, evenly spaced in the list: all of a short one."""
    return items[:: max(1, ceil(len(items) / most))]


def read_lines(path: Path, where: str = '') -> list[str] | None:
    """Read a list from a text file; None without the file, an empty list if all lines are empty.

    ``where`` begins the message of an InputError: the file cannot be read, begins with a byte order
    mark, or has an empty line between or after other lines.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}'{path}' is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{where}'{path}' is not a readable list: {error}") from error
    if text.startswith('\ufeff'):
        raise InputError(
            f"{where}'{path}' begins with a byte order mark, which the first name would contain; save "
            'it as UTF-8 without a byte order mark (BOM)'
        )
    lines = text.removesuffix('\n').split('\n')
    empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if len(empty) == len(lines):
        return []
    if empty:
        raise InputError(f"{where}'{path}', line {empty[0]}: the line is empty; remove it")
    return lines


def read_class_list(given: Any, where: str, unique: bool = True) -> tuple[str, ...] | None:
    """Return the names of a class list of a config: a tuple or list, or the path of a file.

    None stands for a file that is not on a local disk.

    Args:
        given: The value of the config.
        where: The dotted path of the value, for the message of an InputError.
        unique: Whether a name that occurs twice is an error for a list of ImageNet's length, too.
            Otherwise, it is a warning there.
    """
    names, of_file = given, isinstance(given, str)
    if isinstance(given, str):
        if '://' in given:
            return None
        names = read_lines(Path(given), f'{where}: ')
        if names is None:
            raise InputError(f"{where}: got '{given}'; {_no_file(given)}")
        where = f"{where}: '{given}'"
    elif not isinstance(given, (list, tuple)):
        raise InputError(
            f"{where}: got {given!r:.60}; expected a tuple of names, such as ('cat', 'dog'), or the "
            'path of a file with a name in each line'
        )
    _check_names(names, where, unique)
    # A config can repeat a space at the end that is in the annotation file.
    for number, name in enumerate(names if of_file else (), 1):
        if name != name.strip():
            raise InputError(f'{where}, line {number}: {name!r} has spaces at its start or end')
    return tuple(names)


def _no_file(given: str) -> str:
    """Say what to write instead of a string that is no file."""
    if '/' in given or Path(given).suffix in ('.txt', '.csv', '.names'):
        return 'no such file; expected a file with a name in each line, or a tuple of names'
    names = tuple(name.strip() for name in given.split(',') if name.strip())
    kind = 'one class is a tuple, too' if len(names) < 2 else 'expected a tuple of names'
    return (
        f'no file has this name, and the hosts would take each letter as a class; {kind}: {names}'
    )


def _check_names(names: Sequence[Any], where: str, unique: bool) -> None:
    if not names:
        raise InputError(f'{where}: the class list is empty; give the names of the classes')
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(
                f"{where}: class {number} is {name!r:.60}; expected a string ('{name}')"
            )
        if not name.strip():
            raise InputError(f'{where}: the name of class {number}, {name!r}, is empty; correct it')
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        first, second = [number for number, other in enumerate(names) if other == name][:2]
        text = f"{where}: classes {first} and {second} have the same name '{name}'"
        if unique or len(names) != _IMAGENET:
            raise InputError(f'{text}; each class needs a name of its own')
        print_log(text, 'current', logging.WARNING)
