"""The two errors that a tool turns into an exit code."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used; the tools exit with code 2.

    The message is one line: the argument, what came, what is allowed, what to do.
    """


class ProofError(RuntimeError):
    """Two forms of a model that must be equal are not; the tools exit with code 1, nothing written."""
