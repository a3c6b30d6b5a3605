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
from pickle import UnpicklingError
from typing import Any

import numpy as np

#: kinds of NumPy's one-type dtypes: booleans, integers, floats, complex numbers, strings
_DTYPE = re.compile(r'b1|[iu][1248]|f(2|4|8|16)|c(8|16)|U[0-9]{1,4}')
_STATISTICS = ('min', 'max', 'mean', 'current')


def shown_name(name: Any) -> str:
    """Return a name from a file, short and without control characters of a terminal."""
    # Lists can hold one another so often that their repr has no end.
    text = str(name) if isinstance(name, (str, int, float)) else f'a {type(name).__name__}'
    return ''.join(char if char.isprintable() else '?' for char in text[:80])


class DType:
    """Stand-in for ``numpy.dtype``: one plain type, no fields, no flags, no objects."""

    def __init__(self, spec: Any, *_: Any) -> None:
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise UnpicklingError(f'Unsupported numpy dtype {shown_name(spec)}')
        self.spec = spec

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(s is not None for s in state[2:5]):
            raise UnpicklingError('Unsupported numpy dtype with fields')
        if state[1] not in ('<', '>', '|', '='):
            raise UnpicklingError(f'Unsupported numpy byte order {shown_name(state[1])}')
        self.spec = str(np.dtype(self.spec).newbyteorder(state[1]).str)

    def real(self) -> np.dtype[Any]:
        """Return the NumPy type."""
        return np.dtype(self.spec)


class Array(np.ndarray):
    """Stand-in for ``numpy.ndarray`` and NumPy's ``_reconstruct``: an empty array until its state.

    The shape must fit the bytes. It pickles as an ndarray.
    """

    def __new__(cls, *_: Any) -> Array:
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, fortran, raw = state
            real = dtype.real()
            fits = math.prod(shape) * real.itemsize == len(raw) and min(shape, default=0) >= 0
        except (TypeError, ValueError, AttributeError) as error:
            raise UnpicklingError('Unsupported numpy array') from error
        if not isinstance(raw, bytes) or not fits:
            raise UnpicklingError('Unsupported numpy array: its shape does not fit its data')
        super().__setstate__((1, tuple(shape), real, bool(fortran), raw))  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


class History:
    """Stand-in for ``HistoryBuffer`` and becomes a real one, from its two series alone."""

    min = max = mean = current = None

    def __setstate__(self, state: Any) -> None:
        from mmengine.logging.history_buffer import HistoryBuffer

        if not isinstance(state, dict) or type(state.get('max_length')) is not int:
            raise UnpicklingError('Unsupported HistoryBuffer')
        series: list[Any] = [state.get('_log_history'), state.get('_count_history')]
        for values in series:
            if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind == 'U':
                raise UnpicklingError('Unsupported HistoryBuffer: its series are no numbers')
        if len(series[0]) != len(series[1]):
            raise UnpicklingError('Unsupported HistoryBuffer: its series differ in length')
        self.__dict__.update(
            max_length=state['max_length'],
            _log_history=np.array(series[0], subok=False),
            _count_history=np.array(series[1], subok=False),
        )
        # The message hub tests with isinstance and calls the statistics.
        self.__class__ = HistoryBuffer  # type: ignore[assignment]
        self._set_default_statistics()  # type: ignore[attr-defined]


class Namespace:
    """Stand-in for ``argparse.Namespace``, which training scripts save beside the weights."""


def attribute(owner: Any, name: Any) -> None:
    """Replace ``getattr``: accept the statistics of a history and return None for them."""
    if owner is not History or name not in _STATISTICS:
        raise UnpicklingError(f'Unsupported global: GLOBAL getattr of {shown_name(name)}')


def scalar(dtype: Any, raw: Any = b'') -> Any:
    """Replace NumPy's ``scalar``: return one number from its bytes."""
    if not isinstance(dtype, DType) or not isinstance(raw, bytes):
        raise UnpicklingError('Unsupported numpy scalar')
    real = dtype.real()
    if len(raw) != real.itemsize or not raw:
        raise UnpicklingError('Unsupported numpy scalar: its type does not fit its data')
    return np.frombuffer(raw, real)[0]


def no_bytes(*args: Any) -> bytes:
    """Replace ``bytes``, which an empty array needs: return no bytes at all."""
    if args:
        raise UnpicklingError('Unsupported call of bytes')
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
    (Namespace, 'argparse.Namespace'),
)
