"""The two errors that become exit codes of the tools, and the text of errors."""

from collections.abc import Sequence

#: the end of the error about a model that predicts no numbers
NON_FINITE = 'NaN or Inf: its weights overflow or are damaged; use another checkpoint'


class InputError(ValueError):
    """An argument of the user cannot be used; the tools exit with code 2.

    The message is one line: the argument, its value, what is allowed, what to do.
    """


class ProofError(RuntimeError):
    """Two forms of a model differ; the tools write nothing and exit with code 1."""


def check_least(least: int, **numbers: float | None) -> None:
    """Raise an InputError for an argument of the command line that is below its least value."""
    for name, value in numbers.items():
        if value is not None and not value >= least:  # NaN, too
            flag = name.replace('_', '-')
            raise InputError(f'--{flag}: got {value}; expected at least {least}')


def few(names: Sequence[str]) -> str:
    """Return the first three names, and how many there are."""
    shown = ', '.join(f"'{name}'" for name in names[:3])
    return f'{shown}, ... ({len(names)} in total)' if len(names) > 3 else shown or 'none'


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line, for a KeyError without Python's quotes."""
    text = error.args[0] if len(error.args) == 1 and isinstance(error, KeyError) else error
    return ' '.join(str(text).split()) or type(error).__name__


def several(reasons: Sequence[str], shown: int = 3) -> str:
    """Join the first reasons in one line, and count the others."""
    others = len(reasons) - shown
    return '; '.join([*reasons[:shown], *([f'and {others} more'] if others > 0 else [])])
