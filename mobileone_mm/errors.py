"""The two errors that a tool turns into an exit code."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the tools exit with code 2.

    The message is one line: the argument, what came, what is allowed, what to do.
    """


class ProofError(RuntimeError):
    """Two forms of a model that must be equal are not; the tools exit with code 1, nothing written."""


def check_least(least: int, **numbers: int | None) -> None:
    """Raise an InputError for an argument of the command line that is below its least value."""
    for name, value in numbers.items():
        if value is not None and value < least:
            flag = name.replace('_', '-')
            raise InputError(f'--{flag}: got {value}; expected at least {least}')


def one_line(error: BaseException) -> str:
    """The message of an error on one line; a KeyError without the quotes that Python adds."""
    text = error.args[0] if len(error.args) == 1 and isinstance(error, KeyError) else error
    return ' '.join(str(text).split()) or type(error).__name__
