"""Checks of constructor arguments, with one message for each kind."""

import math
from collections.abc import Sequence
from operator import index
from typing import Any


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer (Python's, NumPy's or torch's) and not a bool."""
    return hasattr(value, '__index__') and not isinstance(value, bool)


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer argument from ``low`` to ``high``; else raise a TypeError or ValueError."""
    expected = f'an integer of at least {low}'
    if high is not None:
        expected = f'an integer from {low} to {high}'
    if not is_integer(value):
        raise TypeError(f'{name}: got {value!r}; expected {expected}')
    number = index(value)
    if number < low or (high is not None and number > high):
        raise ValueError(f'{name}: got {number}; expected {expected}')
    return number


def check_integers(
    name: str, value: Any, length: int, low: int, high: int | None = None
) -> tuple[int, ...]:
    """Return ``length`` integers from ``low`` to ``high``; else raise a TypeError or ValueError."""
    values = check_sequence(name, value, length)
    return tuple(check_integer(f'{name}[{i}]', v, low, high) for i, v in enumerate(values))


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, ends: bool = True
) -> float:
    """Return a number from ``low`` to ``high``, without ``ends`` between them; else a ValueError."""
    allowed = f'from {low} to {high}' if ends else f'between {low} and {high}'
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high or (not ends and value in (low, high)):
        allowed = f'of at least {low}' if high == math.inf else allowed
        raise ValueError(f'{name}: got {value!r}; expected a number {allowed}')
    return value


def check_sequence(name: str, value: Any, length: int) -> Sequence[Any]:
    """Return a list or tuple of ``length`` numbers; else raise a TypeError or ValueError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f'{name}: got {value!r}; expected a list of {length} numbers')
    if len(value) != length:
        raise ValueError(f'{name}: got {len(value)} values; expected {length}')
    return value
