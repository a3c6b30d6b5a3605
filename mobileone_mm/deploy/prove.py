"""Proof that two forms of a whole model are one function, on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import InputError, ProofError
from ..reparam.compare import exact_arithmetic
from ..reparam.conv_norm import ConvNorm
from .exact import empty, give_back, in_float64, put, wholly_in_float64
from .forward import RawForward
from .units import (
    UnitDifference,
    counterpart,
    deploy_state,
    greatest,
    try_units,
    unit_differences,
    unit_names,
)

#: greatest difference in float64, relative to the scale of the output: the algebra alone
FLOAT64_TOLERANCE = 1e-9
#: the same in the model's own dtype, in units of its machine epsilon: 1.2e-4 in float32
OWN_TOLERANCE_EPS = 1000
#: outputs of both models, differences of units, and norms that must not be folded
_Run: TypeAlias = tuple[list[Tensor], list[Tensor], list[UnitDifference], dict[str, str]]


@dataclass(frozen=True)
class Difference:
    """How far one output of two models is apart.

    Attributes:
        input: Name of the input.
        dtype: Where it was computed.
        output: ``output N``, the N-th tensor of the raw outputs, or the name of a fused unit.
        absolute: Greatest absolute difference.
        relative: The same, divided by the greatest magnitude in the output.
    """

    input: str
    dtype: str
    output: str
    absolute: float
    relative: float

    def as_dict(self) -> dict[str, Any]:
        """The fields, for a report."""
        return asdict(self)


@torch.no_grad()
def prove_algebra(
    model: nn.Module,
    deployed: nn.Module,
    pairs: list[ConvNorm],
    inputs: Iterable[tuple[str, Tensor]],
) -> tuple[list[Difference], dict[str, str]]:
    """Compare a model with its deploy form, all in float64.

    The kernels of the deploy form are computed anew, not widened. There are no copies of the models
    in float64, which would take four times the memory of the file; see
    :mod:`mobileone_mm.deploy.exact`.

    Args:
        model: The original, in eval mode; the same afterwards.
        deployed: The model of the written pair; its weights are computed anew at the end.
        pairs: Layers and BNs that are folded.
        inputs: Names and inputs.

    Returns:
        The differences; and names of norms that must not be folded, with the reason: where there are
        any, the rest of the proof is left out.

    Raises:
        ProofError: They differ by more than :data:`FLOAT64_TOLERANCE`.
        InputError: The model's outputs are not finite.
    """
    forward = RawForward(model)
    names = unit_names(model, pairs)
    other_of = counterpart(model, deployed, pairs, torch.float64)

    def exact(name: str) -> dict[str, Tensor]:
        return dict(deploy_state(model, pairs, torch.float64, name))

    def run(tensor: Tensor, widened: Callable[..., Any], check: bool) -> _Run:
        with exact_arithmetic():
            with widened(model):
                expected, units = _run_first(forward, model, names, other_of, tensor)
                refused = _refused(model, names, other_of, pairs, units) if check else {}
            if refused:
                return expected, [], units, refused
            with widened(deployed, names, exact):
                return expected, forward(deployed, tensor), units, refused

    differences: list[Difference] = []
    widened = in_float64
    empty(deployed, names)
    for name, given in inputs:
        check = not differences
        try:
            expected, got, units, refused = run(given.double(), widened, check)
        except (RuntimeError, TypeError):  # two dtypes met, in torch's words or a host's
            widened = wholly_in_float64
            expected, got, units, refused = run(given.double(), widened, check)
        if refused:
            return [], refused
        differences += _compare(name, 'float64', expected, got, units)
    _judge(differences, FLOAT64_TOLERANCE)
    put(deployed, deploy_state(model, pairs))
    give_back()
    return differences, {}


@torch.no_grad()
def compare_models(
    first: nn.Module,
    second: nn.Module,
    inputs: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    tolerance: float,
    pairs: Iterable[ConvNorm] = (),
) -> list[Difference]:
    """Differences of two models on all inputs: of all raw outputs, and of the worst fused unit.

    Units are compared one by one, both on the input that the first model's has: what heads make of
    the features can hide an error of some percent in a single unit.

    Args:
        first: The model in training form, in eval mode.
        second: The same in deploy form.
        inputs: Names and inputs; they are cast to ``dtype``.
        dtype: The dtype of both models.
        tolerance: Greatest relative difference that is allowed.
        pairs: Layers and BNs that the second model has as one.

    Raises:
        ProofError: A difference is beyond the tolerance, or the outputs cannot be compared.
        InputError: The first model's outputs are not finite.
    """
    forward = RawForward(first)
    names = unit_names(first, pairs)
    differences: list[Difference] = []
    with exact_arithmetic():
        for name, given in inputs:
            tensor = given.to(dtype)
            expected, units = _run_first(forward, first, names, second.get_submodule, tensor)
            got = forward(second, tensor)
            short = str(dtype).removeprefix('torch.')
            differences += _compare(name, short, expected, got, units)
    _judge(differences, tolerance)
    return differences


def own_tolerance(dtype: torch.dtype) -> float:
    """Greatest relative difference that rounding in the dtype explains."""
    return OWN_TOLERANCE_EPS * torch.finfo(dtype).eps


def _run_first(
    forward: RawForward,
    model: nn.Module,
    names: list[str],
    other_of: Callable[[str], nn.Module],
    tensor: Tensor,
) -> tuple[list[Tensor], list[UnitDifference]]:
    with unit_differences(model, names, other_of) as units:
        expected = forward(model, tensor)
    missed = [name for name in names if name not in {unit[0] for unit in units}]
    return expected, [*units, *try_units(model, missed, other_of, tensor.dtype)[0]]


def _refused(
    model: nn.Module,
    names: list[str],
    other_of: Callable[[str], nn.Module],
    pairs: list[ConvNorm],
    units: list[UnitDifference],
) -> dict[str, str]:
    """Norms of pairs that are not one layer after all, or that nothing can run."""
    missed = [name for name in names if name not in {unit[0] for unit in units}]
    reasons = try_units(model, missed, other_of, torch.float64)[1]
    for name, _, relative in units:
        if not relative <= FLOAT64_TOLERANCE:
            reasons[name] = 'does not act on the bare output of its layer, by which it could fold'
    return {pair.norm: reasons[pair.parent] for pair in pairs if pair.parent in reasons}


def _compare(
    name: str,
    dtype: str,
    expected: list[Tensor],
    got: list[Tensor],
    units: list[UnitDifference],
) -> Iterator[Difference]:
    if not all(bool(torch.isfinite(t).all()) for t in expected):
        raise InputError(
            f'checkpoint: the output of the model is not finite on {name} in {dtype}; the weights '
            'are broken or the training diverged'
        )
    if not expected or [t.shape for t in expected] != [t.shape for t in got]:
        raise ProofError(
            f'the two forms have outputs of different shapes on {name}; nothing was written'
        )
    found = [*_output_differences(expected, got)]
    if units:
        found.append(max(units, key=lambda unit: unit[2]))
    for values in found:
        yield Difference(name, dtype, *values)


def _judge(differences: list[Difference], tolerance: float) -> None:
    worst = max(differences, key=lambda difference: difference.relative)
    if not worst.relative <= tolerance:
        raise ProofError(
            f'the fused model differs from the original by {worst.relative:.2g} of the scale of '
            f'{worst.output} on {worst.input} in {worst.dtype} (allowed: {tolerance:.2g}); nothing '
            'was written'
        )


def _output_differences(
    expected: list[Tensor], got: list[Tensor]
) -> Iterator[tuple[str, float, float]]:
    scales = [greatest(t) for t in expected]
    # An output that is next to nothing beside the others has no digits of its own to compare.
    floor = max(1e-3 * max(scales), 1e-30)
    for index, (a, b, scale) in enumerate(zip(expected, got, scales, strict=True)):
        absolute = greatest(a.cpu().double() - b.cpu().double())
        yield f'output {index}', absolute, absolute / max(scale, floor)
