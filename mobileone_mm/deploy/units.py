"""Single units of two forms of a model, compared on the inputs that the first one's have."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import ProofError
from ..reparam import Reparameterizable
from ..reparam.algebra import fuse_branches
from ..reparam.compare import tensors_of
from ..reparam.conv_norm import ConvNorm, folded_tensors
from ..reparam.surgery import unfused_blocks
from .exact import LARGE, give_back, is_large, put

#: name, absolute and relative difference of one run of a unit
UnitDifference = tuple[str, float, float]
_OWN = ('weight', 'bias')


def deploy_state(
    model: nn.Module,
    pairs: Iterable[ConvNorm] = (),
    dtype: torch.dtype | None = None,
    prefix: str = '',
) -> Iterator[tuple[str, Tensor]]:
    """State dict of the deploy form of a model in training form, tensor by tensor, on the CPU.

    Args:
        model: The model, in eval mode; it is not changed.
        pairs: Layers and BNs that fold, by their names in the model.
        dtype: Of the floating-point tensors; each one's own if not given.
        prefix: Only what is below this name, without it.

    Raises:
        ValueError: Something cannot be fused.
    """
    part = model.get_submodule(prefix) if prefix else model
    start = f'{prefix}.' if prefix else ''
    chosen = [pair for pair in pairs if pair.norm.startswith(start)]
    # A block that stands in several places is one object, but has a key for each of them.
    blocks = {
        name: module
        for name, module in part.named_modules(remove_duplicate=False)
        if isinstance(module, Reparameterizable) and not module.deploy
    }
    inside = tuple(f'{name}.' for name in blocks if name)
    replaced = (
        {pair.norm for pair in chosen},
        {f'{pair.layer}.{n}' for pair in chosen for n in _OWN},
    )
    for name, value in part.state_dict().items() if '' not in blocks else ():
        key = start + name
        if not (
            name.startswith(inside) or key in replaced[1] or key.rpartition('.')[0] in replaced[0]
        ):
            yield name, value.detach().to('cpu', dtype if value.is_floating_point() else None)
    for name, block in blocks.items():
        for key, value in _fused_block(block, dtype):
            yield f'{name}.{key}'.removeprefix('.'), value
        if math.prod(block.kernel_shape) >= LARGE:
            give_back()
    for name, value in folded_tensors(model, chosen, dtype):
        yield name.removeprefix(start), value


@torch.no_grad()
def fill(model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copy tensors into a model, one at a time, so that there is no second set of them in memory.

    Raises:
        ProofError: They are not exactly those of the model.
    """
    target = model.state_dict()
    missing = set(target)
    for name, value in tensors:
        if name not in target or target[name].shape != value.shape:
            raise ProofError(
                f"the written config builds a model without '{name}' of shape {tuple(value.shape)}; "
                'nothing was written'
            )
        target[name].copy_(value)
        missing.discard(name)
    if missing:
        raise ProofError(
            f"the written config builds a model with '{min(missing)}', which the original has not; "
            'nothing was written'
        )


def _fused_block(block: Any, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    branches = block.reparam_branches()
    dtype = dtype or next(b.weight.dtype for b in branches if b.weight is not None)
    kernel, bias = (tensor.to(dtype) for tensor in fuse_branches(branches, block.kernel_shape))
    if not (bool(torch.isfinite(kernel).all()) and bool(torch.isfinite(bias).all())):
        raise ValueError(f'weight: a fused kernel does not fit into {dtype}')
    fused = _replica(block)
    fused.switch_to_deploy(kernel, bias)
    for key, value in fused.state_dict().items():
        yield key, value.detach().to('cpu', dtype if value.is_floating_point() else None)


def _replica(module: Any) -> Any:
    """The module once more, with the same children and tensors, but free to lose them."""
    replica = copy.copy(module)
    for name in ('_parameters', '_buffers', '_modules'):
        setattr(replica, name, dict(getattr(module, name)))
    return replica


def counterpart(
    model: nn.Module, deployed: nn.Module, pairs: list[ConvNorm], dtype: torch.dtype
) -> Callable[[str], nn.Module]:
    """Gives the deploy form of a unit by name, fused anew in a dtype, as a copy.

    Args:
        model: The original.
        deployed: The deploy form; only its structure is used, its tensors may be empty.
        pairs: Layers and BNs that fold.
        dtype: Of the copies.
    """

    def unit_of(name: str) -> nn.Module:
        unit = copy.deepcopy(deployed.get_submodule(name))
        put(unit, deploy_state(model, pairs, dtype, name))
        return unit

    return unit_of


def unit_names(model: nn.Module, pairs: Iterable[ConvNorm]) -> list[str]:
    """Names of re-parameterisable blocks, and of the parents of folded pairs."""
    blocks = [name for name, _ in unfused_blocks(model)]
    return [*blocks, *dict.fromkeys(pair.parent for pair in pairs if pair.parent)]


@contextmanager
def unit_differences(
    first: nn.Module, names: Iterable[str], other_of: Callable[[str], nn.Module]
) -> Iterator[list[UnitDifference]]:
    """Within it, every run of a unit of the first model is repeated by its counterpart.

    Yields a list that fills with the unit's name, absolute and relative difference. Outputs are
    compared at once, so that one pair of them is in memory at a time.

    Args:
        first: The model in training form.
        names: Names of units; see :func:`unit_names`.
        other_of: Gives the counterpart of a unit.
    """
    found: list[UnitDifference] = []
    handles = []
    for name in names:
        # An activation that comes first may write into its input.
        given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        before, after = _hooks(name, given, other_of, found)
        unit = first.get_submodule(name)
        handles.append(unit.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(unit.register_forward_hook(after))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def try_units(
    first: nn.Module,
    names: Iterable[str],
    other_of: Callable[[str], nn.Module],
    dtype: torch.dtype,
) -> tuple[list[UnitDifference], dict[str, str]]:
    """Compare units that no run of the model has reached, on random input of a dtype.

    Returns:
        The differences, and names of units that cannot be run by themselves, with the reason.
    """
    found: list[UnitDifference] = []
    failed: dict[str, str] = {}
    for name in names:
        unit = first.get_submodule(name)
        try:
            inputs = _random_input(unit, dtype)
            difference = _difference(name, inputs, unit(inputs.clone()), other_of(name)(inputs))
        except Exception as error:  # a host's forward raises anything
            reason = ' '.join(str(error).split())[:100]
            failed[name] = f'is not reached by the proof ({type(error).__name__}: {reason})'
            continue
        found.append(difference)
    return found, failed


def _hooks(
    name: str,
    given: list[tuple[tuple[Any, ...], dict[str, Any]]],
    other_of: Callable[[str], nn.Module],
    found: list[UnitDifference],
) -> tuple[Callable[..., None], Callable[..., None]]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given.append((_cloned(args), dict(kwargs)))

    def after(unit: nn.Module, _: Any, output: Any) -> None:
        copied, kwargs = given.pop()
        got = other_of(name)(*_cloned(copied), **kwargs)
        found.append(_difference(name, copied, output, got))
        del got
        if is_large(unit):
            give_back()

    return before, after


def _cloned(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        arg.clone() if isinstance(arg, Tensor) else _cloned(arg) if type(arg) is tuple else arg
        for arg in args
    )


def _difference(name: str, inputs: Any, expected: Any, got: Any) -> UnitDifference:
    pairs = list(tensors_of(expected)), list(tensors_of(got))
    if [t.shape for t in pairs[0]] != [t.shape for t in pairs[1]]:
        return name, math.inf, math.inf
    # A unit whose output is next to nothing has no digits of its own to compare.
    floor = 1e-3 * max((greatest(t) for t in tensors_of(inputs)), default=0.0)
    absolute = relative = 0.0
    for one, other in zip(*pairs, strict=True):
        apart = greatest(one.cpu().double() - other.cpu().double())
        absolute = max(absolute, apart)
        relative = max(relative, apart / max(greatest(one), floor, 1e-30))
    return name, absolute, relative


def greatest(tensor: Tensor) -> float:
    """Greatest magnitude; infinite if there is a NaN, which equals nothing."""
    value = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    return math.inf if math.isnan(value) else value


def _random_input(unit: nn.Module, dtype: torch.dtype) -> Tensor:
    layers = [m for m in unit.modules() if isinstance(m, (_ConvNd, nn.Linear))]
    layer = layers[0]
    generator = torch.Generator().manual_seed(0)
    if isinstance(layer, _ConvNd):
        reach = [(k - 1) * d + 4 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        shape = (2, layer.in_channels, *reach)
    else:
        shape = (2, layer.in_features)
    return torch.randn(shape, generator=generator).to(layer.weight.device, dtype)
