"""Inert stand-ins for what a checkpoint's pickle names, used by its dry run.

Each call checks its arguments and runs nothing of the file's; see
:mod:`mobileone_mm.weights.inspection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pickle import UnpicklingError
from typing import Any

from .allowed import ALLOWED

#: bytes of a number by the name of torch's storage class
ITEM_BYTES = {
    **dict.fromkeys(('Bool', 'Byte', 'Char'), 1),
    **dict.fromkeys(('Half', 'BFloat16', 'Short'), 2),
    **dict.fromkeys(('Float', 'Int'), 4),
    **dict.fromkeys(('Double', 'Long', 'ComplexFloat'), 8),
    'ComplexDouble': 16,
}
#: what torch can build and the models here cannot load
OTHER_TENSORS = {
    'torch._utils._rebuild_qtensor': 'quantised tensors',
    'torch._utils._rebuild_sparse_tensor': 'sparse tensors',
    'torch._utils._rebuild_nested_tensor': 'nested tensors',
    'torch._utils._rebuild_meta_tensor_no_storage': 'tensors without data',
}
_SCALARS = (str, int, float, bool, bytes, complex, type(None))


class RefusedError(UnpicklingError):
    """A file asks for something that no state dict needs; the message says what."""


class Global:
    """Takes the place of a class or function that the file names."""

    __slots__ = ('call', 'item_bytes', 'name')

    def __init__(self, name: str, call: Callable[..., Any] | None = None, item_bytes: int = 0):
        self.name = name
        self.call = call
        self.item_bytes = item_bytes


class Thing:
    """Takes the place of an object: keeps what it is made from, so that this is inspected as well."""

    __slots__ = ('name', 'parts')

    def __init__(self, name: str, *parts: Any) -> None:
        self.name = name
        self.parts = list(parts)


class Ordered(dict):
    """Takes the place of an ``OrderedDict``, whose attributes a file can set."""


class Storage:
    """Takes the place of a tensor's memory."""

    __slots__ = ('bytes', 'item_bytes')

    def __init__(self, item_bytes: int, count: int) -> None:
        self.item_bytes = item_bytes
        self.bytes = item_bytes * count


class Tensor:
    """Takes the place of a tensor."""

    __slots__ = ('bytes',)

    def __init__(self, size: int) -> None:
        self.bytes = size


def checked_key(key: Any) -> Any:
    """A key whose hash is cheap."""
    flat = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, _SCALARS) for part in flat):
        raise UnpicklingError('Unsupported key of a dict')
    return key


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def numbers(value: Any) -> tuple[int, ...]:
    value = value.parts[0] if isinstance(value, Thing) and value.name == 'torch.Size' else value
    if not isinstance(value, tuple) or not all(map(is_count, value)):
        raise UnpicklingError('Unsupported shape of a tensor')
    return value


def check_metadata(state: Any) -> None:
    """The one attribute of a state dict: versions of its modules, which torch trusts."""
    versions = state.get('_metadata') if isinstance(state, dict) and len(state) == 1 else None
    if not isinstance(versions, dict) or not all(
        isinstance(entry, dict) and type(entry.get('version', 0)) in (int, type(None))
        for entry in versions.values()
    ):
        raise UnpicklingError('Unsupported attributes of an OrderedDict')


def _thing(name: str) -> Callable[..., Thing]:
    return lambda *args: Thing(name, *args)


def _ordered(*args: Any) -> Ordered:
    pairs = args[0] if args else ()  # Python 2 wrote the items here
    if len(args) > 1 or not isinstance(pairs, (list, tuple)):
        raise UnpicklingError('Unsupported OrderedDict')
    made = Ordered()
    for key, value in pairs:
        made[checked_key(key)] = value
    return made


def _counter(*args: Any) -> Ordered:
    counts = args[0] if args else {}
    if len(args) > 1 or type(counts) is not dict:
        raise UnpicklingError('Unsupported Counter')
    return Ordered(counts)


def _set(*args: Any) -> set[Any]:
    if len(args) > 1 or not isinstance(args[0] if args else (), (list, tuple)):
        raise UnpicklingError('Unsupported set')
    items: Iterable[Any] = args[0] if args else ()
    return {checked_key(item) for item in items}


def _encoded(*args: Any) -> bytes:
    # Other codecs can take time with the square of the length.
    if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ('latin1', 'latin-1'):
        raise UnpicklingError('Unsupported bytes')
    return args[0].encode('latin1')


def _plain(name: str) -> Callable[..., Thing]:
    def call(*args: Any) -> Thing:
        if not all(isinstance(arg, _SCALARS) for arg in args):
            raise UnpicklingError(f'Unsupported {name}')
        return Thing(name, *args)

    return call


def _parameter(*args: Any) -> Tensor:
    if (
        not args
        or not isinstance(args[0], Tensor)
        or any(a not in (False, True, {}) for a in args[1:])
    ):
        raise UnpicklingError('Unsupported parameter')
    return args[0]


REBUILD = (
    'torch._utils._rebuild_tensor',
    'torch._utils._rebuild_tensor_v2',
    'torch._utils._rebuild_tensor_v3',
)
CALLS: dict[str, Callable[..., Any]] = {
    **{name: _thing(name) for _, name in ALLOWED},
    'torch.Size': _thing('torch.Size'),
    'torch.device': _plain('torch.device'),
    'builtins.complex': _plain('complex'),
    'builtins.set': _set,
    'collections.Counter': _counter,
    'collections.OrderedDict': _ordered,
    '_codecs.encode': _encoded,
    'torch._utils._rebuild_parameter': _parameter,
}
