"""What proofs of equality consist of: exact arithmetic and measures of difference."""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

#: part of the greatest surrounding magnitude below which an output counts as close to 0
FLOOR = 1e-3
#: smallest divisor of a difference
TINY = 1e-30
_cloned = partial(tree_map_only, Tensor, torch.clone)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Switch off TF32, whose rounding (three digits) is as large as the error of a wrong fusion."""
    with warnings.catch_warnings():  # newer torch has other names for the same switches
        warnings.simplefilter('ignore')
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def tensors_of(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of a nested output (tuples, lists, dicts), depth first."""
    leaves = tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def greatest(*values: Any) -> float:
    """Return the greatest magnitude in nested tensors: infinity for NaN, 0 if there are no numbers."""
    found = [float(t.detach().abs().max()) for t in tensors_of(values) if t.numel()]
    return _infinite_if_nan(max(found, default=0.0, key=_infinite_if_nan))


def max_difference(first: Any, second: Any, floor: float = 0.0) -> tuple[float, float]:
    """Return the greatest difference of an expected and another nested output, absolute and relative.

    The relative difference of two tensors is the greatest absolute difference divided by their scale:
    the greatest magnitude in the first tensor, or the floor (see :func:`scale_floor`) if that is more.
    The greatest relative difference of all pairs of tensors is returned. NaN on either side gives
    infinity. Outputs without numbers, or of another number or shape of tensors, are a ValueError.
    """
    pairs = tensors_of(first), tensors_of(second)
    shapes = tuple([tuple(t.shape) for t in side] for side in pairs)
    if shapes[0] != shapes[1]:  # also where the two shapes would broadcast
        raise ValueError(f'outputs: shapes {shapes[0]} and {shapes[1]} cannot be compared')
    if not any(t.numel() for t in pairs[0]):
        raise ValueError(f'outputs: no numbers to compare (shapes: {shapes[0]})')
    absolute = relative = 0.0
    for a, b in zip(*pairs, strict=True):
        expected = a.detach().cpu().double()
        difference = greatest(expected - b.detach().cpu().double())
        absolute = max(absolute, difference)
        # Infinity divided by infinity is NaN, and no maximum would see it.
        scale = max(greatest(expected), floor, TINY)
        relative = max(relative, _infinite_if_nan(difference / scale))
    return absolute, relative


def scale_floor(*values: Any) -> float:
    """Return the smallest scale of a difference, from the inputs of a unit or all outputs of a model.

    An output close to 0 has no digits of its own to compare.
    """
    return FLOOR * greatest(values)


@contextmanager
def unit_differences(
    first: nn.Module, others: Mapping[str, nn.Module]
) -> Iterator[dict[str, tuple[float, float]]]:
    """Repeat every run of some units of a model by their counterparts, on the same inputs.

    Comparing whole outputs is not enough: later layers can hide an error of some percent in one unit.
    Yields a dict from the name of a unit to its greatest difference, absolute and relative (see
    :func:`max_difference`), which is filled while the model ``first`` runs. Runs whose expected output
    is not finite are left out: there the weights are at fault, not the counterpart.
    """
    found: dict[str, tuple[float, float]] = {}
    given: dict[str, list[Any]] = {name: [] for name in others}  # a stack each: units may recur

    def before(name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        # Copies, because a unit that begins with an activation may write into its input.
        given[name].append(_cloned((args, kwargs)))

    def after(name: str, _: nn.Module, __: Any, output: Any) -> None:
        args, kwargs = given[name].pop()
        if math.isinf(greatest(output)):
            return
        copied_args, copied_kwargs = _cloned((args, kwargs))
        got = others[name](*copied_args, **copied_kwargs)
        apart = unit_difference((args, kwargs), output, got)
        worst = found.get(name, (0.0, 0.0))
        found[name] = max(worst[0], apart[0]), max(worst[1], apart[1])

    with ExitStack() as hooks:
        for name in others:
            unit, start = first.get_submodule(name), partial(before, name)
            hooks.enter_context(unit.register_forward_pre_hook(start, with_kwargs=True))
            hooks.enter_context(unit.register_forward_hook(partial(after, name)))
        yield found


def unit_difference(inputs: Any, expected: Any, got: Any) -> tuple[float, float]:
    """Return the difference of two outputs of a unit; infinity if they cannot be compared."""
    try:
        return max_difference(expected, got, scale_floor(inputs))
    except ValueError:  # other shapes, or no tensors at all: nothing is proved
        return math.inf, math.inf


def fingerprint(model: nn.Module) -> str:
    """Hash the parameters and buffers of a model with their names, types and shapes (SHA-256)."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
        data = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(data.numpy().tobytes())
    return digest.hexdigest()


def value_difference(first: float, second: float) -> float:
    """Return the absolute difference of two metrics: 0 if both are NaN, infinity if one of them is."""
    if first == second or (math.isnan(first) and math.isnan(second)):
        return 0.0
    return _infinite_if_nan(abs(first - second))


def _infinite_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
