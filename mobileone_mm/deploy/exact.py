"""Running a model in float64 without a second copy of it in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

#: values of a kernel from which on the memory of its copies is worth returning at once
LARGE = 1 << 18
#: gives the tensors of a unit in float64, by their names in the unit
TensorsOf = Callable[[str], Mapping[str, Tensor]]


@contextmanager
def in_float64(
    model: nn.Module, units: Iterable[str] = (), tensors_of: TensorsOf | None = None
) -> Iterator[None]:
    """Within it, the model computes in float64 if its input is; afterwards it is as before.

    Each module's tensors are widened when it runs and narrowed after it, which changes no bit of
    them. A module that reaches into another one (attention does) would meet float32 there, and
    PyTorch refuses to mix the two: :class:`RuntimeError`. See :func:`wholly_in_float64`.

    Args:
        model: Any module.
        units: Names of parts that take other tensors than their own.
        tensors_of: Gives these tensors.
    """
    own = {} if tensors_of is None else {name: partial(tensors_of, name) for name in units}
    with ExitStack() as stack:
        stack.callback(give_back)
        inside: tuple[str, ...] = ('\0',)
        for name, module in model.named_modules():
            if name.startswith(inside):
                continue
            if name in own:
                inside += (f'{name}.',)
                _swap_while_running(stack, module, own[name])
            elif module._parameters or module._buffers:
                _swap_while_running(stack, module, None)
        yield


@contextmanager
def wholly_in_float64(
    model: nn.Module, units: Iterable[str] = (), tensors_of: TensorsOf | None = None
) -> Iterator[None]:
    """As :func:`in_float64`, for models whose modules use each other's tensors; takes more memory."""
    with ExitStack() as stack:
        kept = [
            (owner, name, tensor.dtype)
            for owner in model.modules()
            for name, tensor in _own(owner)
            if tensor.is_floating_point()
        ]
        stack.callback(_narrow, kept)
        for module in model.modules():
            put(module, _widened(module).items())
        if tensors_of is not None:
            for name in units:
                unit = model.get_submodule(name)
                stack.callback(put, unit, _below(unit).items())
                put(unit, tensors_of(name).items())
        yield


def _swap_while_running(
    stack: ExitStack, module: nn.Module, tensors_of: Callable[[], Mapping[str, Tensor]] | None
) -> None:
    kept: list[dict[str, Tensor]] = []

    def before(running: nn.Module, _: Any) -> None:
        if not kept:
            kept.append(dict(_own(running)) if tensors_of is None else _below(running))
            put(running, (_widened(running) if tensors_of is None else tensors_of()).items())

    def after(running: nn.Module, *_: Any) -> None:
        if kept:
            put(running, kept.pop().items())
            if tensors_of is not None and is_large(running):
                give_back()

    stack.callback(after, module)  # a run that failed leaves them
    stack.callback(module.register_forward_pre_hook(before).remove)
    stack.callback(module.register_forward_hook(after, prepend=True).remove)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of the module itself; the storage, not the Parameter."""
    found = {**module._parameters, **module._buffers}
    return [(name, tensor.data) for name, tensor in found.items() if tensor is not None]


def _below(module: nn.Module) -> dict[str, Tensor]:
    """The same for everything below it, too."""
    return {
        f'{prefix}.{name}'.removeprefix('.'): tensor
        for prefix, owner in module.named_modules()
        for name, tensor in _own(owner)
    }


def _widened(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in _own(module) if tensor.is_floating_point()}


def put(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Let a module's parameters and buffers be other tensors, of any dtype and shape, by name."""
    for name, tensor in tensors:
        owner, _, own = name.rpartition('.')
        part = module.get_submodule(owner)
        holders = part._parameters if own in part._parameters else part._buffers
        holder: Any = holders[own]
        holder.data = tensor.to(holder.device)


def empty(module: nn.Module, units: Iterable[str]) -> None:
    """Give back the memory of all tensors of some units, until :func:`put` sets them again."""
    for name in units:
        unit = module.get_submodule(name)
        put(unit, [(key, tensor.new_empty(0)) for key, tensor in _below(unit).items()])
    give_back()


def is_large(module: nn.Module) -> bool:
    """Whether the memory of a module's float64 copies is worth returning at once."""
    return sum(parameter.numel() for parameter in module.parameters()) >= LARGE


def give_back() -> None:
    """Return freed memory to the system, where the C library can.

    glibc raises by itself the size from which on it returns blocks at once; after the first large
    kernels it keeps all that is freed, and the next step comes on top of it.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _narrow(kept: Iterable[tuple[nn.Module, str, torch.dtype]]) -> None:
    for owner, name, dtype in kept:
        put(owner, [(name, dict(_own(owner))[name].to(dtype))])
