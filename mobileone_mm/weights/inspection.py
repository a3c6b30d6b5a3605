"""A dry run of a checkpoint's pickle: what it would build and how large, before torch builds it.

torch's ``weights_only`` reader runs no code, but trusts sizes and shapes: a file of 1 kB can ask for
a ``bytearray`` of all memory, for a tensor that shows one number 10^15 times, for hashes and texts
that take forever (tuples that hold one another twice, 50 deep), for storages that the file does not
fill, and for tensors without data, quantised or sparse ones that fail later in a host. Here the same
instructions run on inert stand-ins; whatever a state dict does not need is refused with its name.
"""

from __future__ import annotations

import math
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

from .inert import (
    CALLS,
    ITEM_BYTES,
    OTHER_TENSORS,
    REBUILD,
    Global,
    Ordered,
    RefusedError,
    Storage,
    Tensor,
    Thing,
    check_metadata,
    checked_key,
    is_count,
    numbers,
)

_INSTRUCTIONS = (
    *(pickle.APPEND, pickle.APPENDS, pickle.BINFLOAT, pickle.BINGET, pickle.BININT, pickle.BININT1),
    *(pickle.BININT2, pickle.BINPERSID, pickle.BINPUT, pickle.BINUNICODE, pickle.BUILD),
    *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.EMPTY_TUPLE, pickle.GLOBAL),
    *(pickle.LONG1, pickle.LONG_BINGET, pickle.LONG_BINPUT, pickle.MARK, pickle.NEWFALSE),
    *(pickle.NEWOBJ, pickle.NEWTRUE, pickle.NONE, pickle.PROTO, pickle.REDUCE, pickle.SETITEM),
    *(pickle.SETITEMS, pickle.SHORT_BINSTRING, pickle.STOP, pickle.TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3),
)
_MAX_DEPTH = 100
_MAX_NODES = 10_000_000
#: how many times its size a file may show as tensors: weights that share memory are saved once
_SHARING = 8


# Typed as anything: the stubs know only the one in C.
_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class Inspector(_Unpickler):  # type: ignore[misc]
    """Runs the pickle of a checkpoint on stand-ins.

    Python's own unpickler in Python: that in C reserves memory for whatever index a file names.

    Args:
        file: Positioned at the pickle.
        records: Bytes of each storage of a zip file by its name; None for an older file, which
            has its storages behind the pickle.
        limit: Bytes of the file.
    """

    # Those of torch's reader. Others can reserve memory before they find that there is no data.
    dispatch = {op[0]: _Unpickler.dispatch[op[0]] for op in _INSTRUCTIONS}

    def __init__(self, file: BinaryIO, records: Mapping[str, int] | None, limit: int) -> None:
        super().__init__(file, encoding='utf-8')
        self.records = records
        self.limit = limit
        self.shown = 0
        self.storages: dict[str, tuple[Any, int, Storage]] = {}

    def inspect(self) -> Any:
        """What the file holds, as stand-ins.

        Raises:
            RefusedError: It names or declares what no state dict needs.
            Exception: The pickle is damaged.
        """
        try:
            root = self.load()
        except KeyError as error:
            raise UnpicklingError(f'Unsupported instruction or reference {error}') from error
        check_tree(root)
        return root

    def find_class(self, module: str, name: str) -> Global:
        """The stand-in of a name, by torch's translation of names of Python 2."""
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = f'{module}.{name}'
        if path in CALLS:
            return Global(path, CALLS[path])
        if path in REBUILD:
            return Global(path, lambda *args: self._tensor(path, *args))
        kind = name.removesuffix('Storage')
        if module in ('torch', 'torch.cuda') and kind != name and kind in ITEM_BYTES:
            return Global(path, item_bytes=ITEM_BYTES[kind])
        if path == 'torch.storage.UntypedStorage':
            return Global(path, item_bytes=1)
        dtype = vars(torch).get(name) if module == 'torch' else None
        if isinstance(dtype, torch.dtype):
            return Global(path, item_bytes=dtype.itemsize)
        if path in OTHER_TENSORS:
            raise RefusedError(f'holds {OTHER_TENSORS[path]}; plain dense ones are needed')
        raise RefusedError(f'GLOBAL {path}')

    def persistent_load(self, pid: Any) -> Storage:
        """A storage: its size must be that of the file's record."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != 'storage':
            raise UnpicklingError('Unsupported reference to a storage')
        kind, key, location, count = pid[1:5]
        sane = isinstance(kind, Global) and kind.item_bytes and isinstance(key, str)
        if not sane or not isinstance(location, str) or location == 'meta' or not is_count(count):
            raise UnpicklingError('Unsupported reference to a storage')
        if key in self.storages:
            known, known_count, storage = self.storages[key]
            if (known, known_count) != (kind.name, count):
                raise UnpicklingError(f'storage {key[:40]!r} is declared in two ways')
            return storage
        storage = Storage(kind.item_bytes, count)
        if self.records is None:
            if len(pid) == 6 and pid[5] is not None:
                raise UnpicklingError('Unsupported view of a storage')
            declared = storage.bytes + sum(other.bytes for _, _, other in self.storages.values())
            if declared > self.limit:
                raise RefusedError('declares more data than it has')
        elif self.records.get(key) != storage.bytes:
            raise RefusedError(
                f'declares {storage.bytes} bytes for storage {key[:40]!r}, which has '
                f'{self.records.get(key, "none")}'
            )
        self.storages[key] = kind.name, count, storage
        return storage

    def _tensor(
        self, path: str, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
    ) -> Tensor:
        shape, steps = numbers(size), numbers(stride)
        if not isinstance(storage, Storage) or not is_count(offset) or len(shape) != len(steps):
            raise UnpicklingError('Unsupported tensor')
        item = storage.item_bytes
        if path.endswith('v3'):
            dtype = rest[2] if len(rest) > 2 else None
            if not isinstance(dtype, Global) or not dtype.item_bytes:
                raise UnpicklingError('Unsupported tensor: no dtype')
            item = dtype.item_bytes
        extras = rest[:2] + rest[3:] if path.endswith('v3') else rest
        if len(shape) > 64 or any(extra not in (False, True, None, {}) for extra in extras):
            raise UnpicklingError('Unsupported tensor: it has hooks or flags')
        numel = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if numel and (last + 1) * item > storage.bytes:
            raise RefusedError(f'declares a tensor of shape {shape[:8]} beyond its data')
        self.shown += numel * item
        if self.shown > _SHARING * self.limit:
            raise RefusedError('declares more data than it has')
        return Tensor(numel * item)

    # -- instructions ------------------------------------------------------------------------------

    def load_proto(self) -> None:
        if self.read(1) != b'\x02':
            raise UnpicklingError('Unsupported pickle protocol')

    def load_binunicode(self) -> None:
        length = int.from_bytes(self.read(4), 'little')
        if length > self.limit:  # before a reader reserves memory for it
            raise EOFError('a text is cut off')
        # Strict, unlike pickle: half of a surrogate pair can be neither printed nor written.
        self.append(str(self.read(length), 'utf-8'))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], args)

    def _called(self, what: Any, args: Any) -> Any:
        if not isinstance(what, Global) or what.call is None or not isinstance(args, tuple):
            raise UnpicklingError('Unsupported call')
        return what.call(*args)

    def load_build(self) -> None:
        state, owner = self.stack.pop(), self.stack[-1]
        if isinstance(owner, Thing):
            owner.parts.append(state)
        elif isinstance(owner, Ordered):
            check_metadata(state)
        else:
            raise UnpicklingError('Unsupported state of an object')

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def _set(self, owner: Any, items: list[Any]) -> None:
        if not isinstance(owner, dict) or len(items) % 2:
            raise UnpicklingError('Unsupported item of an object')
        for key, value in zip(items[::2], items[1::2], strict=True):
            if checked_key(key) in owner:
                raise RefusedError(f'holds the key {str(key)[:80]!r} twice')
            owner[key] = value

    dispatch[pickle.PROTO[0]] = load_proto
    dispatch[pickle.BINUNICODE[0]] = load_binunicode
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems


def inspect_legacy(file: BinaryIO, limit: int) -> None:
    """Inspect a file of torch before 1.6: header, the object, and the storages behind them.

    Raises:
        RefusedError: It names or declares what no state dict needs, or leaves a storage unfilled,
            which torch would leave as the memory happens to be.
    """
    # Of a file that is a plain pickle torch reads the first part alone, and refuses it.
    for _ in range(3):
        Inspector(file, {}, limit).inspect()
    content = Inspector(file, None, limit)
    content.inspect()
    keys = Inspector(file, {}, limit).inspect()
    declared = content.storages
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnpicklingError('no list of storages')
    if len(keys) != len(declared) or set(keys) != set(declared):
        raise RefusedError('does not fill its storages')
    needed = sum(8 + storage.bytes for _, _, storage in declared.values())
    if limit - file.tell() != needed:
        raise UnpicklingError(f'{limit - file.tell()} bytes of data where {needed} are declared')


def check_tree(root: Any) -> None:
    """Refuse what contains itself, is very deep, or very large when written out.

    A pickle is a graph: 50 lists that hold the one before twice are 10^15 lists to whoever copies,
    prints or compares them.
    """
    sizes: dict[int, tuple[int, int]] = {}
    stack: list[tuple[Any, bool]] = [(root, False)]
    open_: set[int] = set()
    while stack:
        node, done = stack.pop()
        parts = _parts(node)
        if done:
            open_.discard(id(node))
            below = [sizes.get(id(part), (1, 0)) for part in parts]
            nodes = 1 + sum(count for count, _ in below)
            depth = 1 + max((deep for _, deep in below), default=0)
            if nodes > _MAX_NODES or depth > _MAX_DEPTH:
                raise RefusedError('is nested too deeply, or too often, for a checkpoint')
            sizes[id(node)] = nodes, depth
        elif id(node) in open_:
            raise RefusedError('contains itself')
        elif parts and id(node) not in sizes:
            open_.add(id(node))
            stack.append((node, True))
            stack.extend((part, False) for part in parts)


def _parts(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    if isinstance(node, Thing):
        return node.parts
    return list(node) if isinstance(node, (list, tuple, set)) else []
