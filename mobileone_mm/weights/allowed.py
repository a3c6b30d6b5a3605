"""The names that a checkpoint may refer to besides tensors: safe stand-ins for objects of a Runner.

A Runner's checkpoint holds :class:`mmengine.logging.HistoryBuffer` objects; these hold NumPy arrays,
and their statistics are pickled as ``getattr(HistoryBuffer, 'mean')``. OneDL's mmengine allows the
real callables: with ``getattr`` a file can reach anything, ``numpy.dtype`` takes flags and fields that
NumPy trusts as a memory layout, and ``HistoryBuffer.__setstate__`` writes into a table of the whole
process. The stand-ins build the same values from checked data alone.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from pickle import UnpicklingError
from typing import Any

import numpy as np

#: kinds of NumPy's one-type dtypes: booleans, integers, floats, complex numbers, strings
_DTYPE = re.compile(r'b1|[iu][1248]|f(2|4|8|16)|c(8|16)|U[0-9]{1,4}')


def shown_name(name: Any) -> str:
    """Return a name from a file, short and without control characters of a terminal."""
    # Lists can hold one another so often that their repr has no end.
    text = str(name) if isinstance(name, (str, int, float)) else f'a {type(name).__name__}'
    return ''.join(char if char.isprintable() else '?' for char in text[:80])


def _refuse(what: str) -> UnpicklingError:
    return UnpicklingError(f'Unsupported {what}')


class DType:
    """Stand-in for ``numpy.dtype``: one plain type, no fields, no flags, no objects."""

    def __init__(self, spec: Any, *_: Any) -> None:
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise _refuse(f'numpy dtype {shown_name(spec)}')
        self.real = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 4 else None
        if order not in ('<', '>', '|', '=') or any(part is not None for part in state[2:5]):
            raise _refuse('numpy dtype with fields or an unknown byte order')
        self.real = np.dtype(self.real.newbyteorder(order).str)


class Array(np.ndarray):
    """Stand-in for ``numpy.ndarray`` and NumPy's ``_reconstruct``: an empty array until its state.

    The shape must fit the bytes. It pickles as an ndarray.
    """

    def __new__(cls, *_: Any) -> Array:
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, fortran, raw = state
            fits = math.prod(shape) * dtype.real.itemsize == len(raw)
            fits = fits and isinstance(raw, bytes) and all(size >= 0 for size in shape)
        except (TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise _refuse('numpy array: its shape does not fit its data')
        super().__setstate__((1, tuple(shape), dtype.real, bool(fortran), raw))  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


class History:
    """Stand-in for ``HistoryBuffer`` and becomes a real one, from its two series alone."""

    min = max = mean = current = None

    def __setstate__(self, state: Any) -> None:
        from mmengine.logging.history_buffer import HistoryBuffer

        self.__dict__['max_length'] = state['max_length']
        for name in ('_log_history', '_count_history'):
            self.__dict__[name] = np.array(state[name], subok=False)
        # The message hub tests with isinstance and calls the statistics.
        self.__class__ = HistoryBuffer  # type: ignore[assignment]
        self._set_default_statistics()  # type: ignore[attr-defined]


def attribute(owner: Any, name: Any) -> None:
    """Replace ``getattr``: accept the statistics of a history and return None for them."""
    if owner is not History or name not in ('min', 'max', 'mean', 'current'):
        raise _refuse(f'global: GLOBAL getattr of {shown_name(name)}')


def scalar(dtype: Any, raw: Any = b'') -> Any:
    """Replace NumPy's ``scalar``: return one number from its bytes."""
    return np.frombuffer(raw, dtype.real)[0]


def no_bytes(*args: Any) -> bytes:
    """Replace ``bytes``, which an empty array needs: return no bytes at all."""
    if args:
        raise _refuse('call of bytes')
    return b''


#: (stand-in, the name in the file) as torch.serialization.add_safe_globals takes them; NumPy 1
#: wrote ``numpy.core`` where NumPy 2 writes ``numpy._core``
ALLOWED: tuple[tuple[Any, str], ...] = (
    (DType, 'numpy.dtype'),
    (Array, 'numpy.ndarray'),
    (Array, 'numpy._core.multiarray._reconstruct'),
    (Array, 'numpy.core.multiarray._reconstruct'),
    (scalar, 'numpy._core.multiarray.scalar'),
    (scalar, 'numpy.core.multiarray.scalar'),
    (History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (attribute, 'builtins.getattr'),
    (no_bytes, 'builtins.bytes'),
    (slice, 'builtins.slice'),
    (Namespace, 'argparse.Namespace'),  # training scripts save it beside the weights
)
