"""Proof, on data, that two forms of a whole model are the same function."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import InputError, ProofError, one_line
from ..reparam import reparameterize_model
from ..reparam.compare import (
    exact_arithmetic,
    max_difference,
    scale_floor,
    unit_difference,
    unit_differences,
)
from ..reparam.conv_norm import ConvNorm, fold_norm, folded_tensors
from ..reparam.surgery import unfused_blocks
from .forward import RawForward

#: greatest relative difference in float64, where only the algebra counts
FLOAT64_TOLERANCE = 1e-9
#: the same in the model's own dtype, in units of its machine epsilon: 1.2e-4 in float32
OWN_TOLERANCE_EPS = 1000


@dataclass(frozen=True)
class Difference:
    """The greatest difference of one output of two models."""

    input: str  # its name
    dtype: str
    output: str  # ``output N``, the N-th tensor of the raw outputs, or the name of a fused unit
    absolute: float
    relative: float  # to the scale of the output


def deploy_state(model: nn.Module, pairs: list[ConvNorm]) -> dict[str, Tensor]:
    """Return the state dict of the deploy form of a model in eval mode, which stays as it is."""
    norms = tuple(f'{pair.norm}.' for pair in pairs)
    fused = reparameterize_model(model).state_dict()
    state = {name: value for name, value in fused.items() if not name.startswith(norms)}
    return {**state, **dict(folded_tensors(model, pairs))}


@torch.no_grad()
def failing_folds(
    forward: RawForward, model: nn.Module, pairs: list[ConvNorm], inputs: Tensor
) -> dict[str, str]:
    """Find the pairs that are not one layer on data, although the structure of the model says so.

    In a copy of its parent, each layer takes the folded weights and each BN becomes the identity. The
    copy must give the output of the parent wherever the model (in float64) runs it. Returns the names
    of the norms that must not be folded, with the reason.
    """
    folded = {parent: _folded_copy(model, parent, pairs) for parent in _parents(pairs)}
    with exact_arithmetic(), unit_differences(model, folded) as found:
        if folded:
            forward(model, inputs)
    reasons = {}
    for parent, copied in folded.items():
        try:
            apart = found.get(parent) or _run_alone(model.get_submodule(parent), copied)
            if not apart[1] <= FLOAT64_TOLERANCE:
                reasons[parent] = 'does not act directly on the output of its layer'
        except Exception as error:  # forward methods of the hosts raise anything
            text = f'{type(error).__name__}: {one_line(error)[:100]}'
            reasons[parent] = f'is not run by the proof, nor by itself ({text})'
    return {pair.norm: reasons[pair.parent] for pair in pairs if pair.parent in reasons}


@torch.no_grad()
def compare_models(
    forward: RawForward,
    first: nn.Module,
    second: nn.Module,
    inputs: Iterable[tuple[str, Tensor]],
    tolerance: float,
    pairs: Iterable[ConvNorm],
) -> list[Difference]:
    """Compare two models on all inputs: all raw outputs, and the fused unit that differs most.

    The first model is in training form, the second in deploy form with the pairs as one layer each;
    both are in eval mode and in the same dtype. Units are compared one by one on the inputs that they
    have in the first model. Those that no run reaches (auxiliary heads) are compared on random input.
    A relative difference beyond the tolerance, or other shapes, are a ProofError; outputs of the first
    model that are not finite are an InputError.
    """
    names = [*(name for name, _ in unfused_blocks(first)), *_parents(pairs)]
    units = {name: second.get_submodule(name) for name in names}
    dtype = next(first.parameters()).dtype
    differences: list[Difference] = []
    for name, given in inputs:
        tensor = given.to(dtype)
        with exact_arithmetic():
            with unit_differences(first, units) as found:
                expected = forward(first, tensor)
            got = forward(second, tensor)
            for unit in units.keys() - found.keys():
                found[unit] = _run_alone(first.get_submodule(unit), units[unit])
        difference = partial(Difference, name, str(dtype).removeprefix('torch.'))
        differences += [difference(*values) for values in _outputs(name, expected, got)]
        unit = max(units, key=lambda unit: found[unit][1])
        differences.append(difference(unit, *found[unit]))
    worst = max(differences, key=lambda difference: difference.relative)
    if not worst.relative <= tolerance:
        raise ProofError(
            f'the fused model differs from the original by {worst.relative:.2g} of the scale of '
            f'{worst.output} on {worst.input} in {worst.dtype} (allowed: {tolerance:.2g}); nothing '
            'was written'
        )
    return differences


def _outputs(
    name: str, expected: list[Tensor], got: list[Tensor]
) -> Iterator[tuple[str, float, float]]:
    if not all(bool(torch.isfinite(t).all()) for t in expected):
        raise InputError(
            f'checkpoint: the output of the model is not finite on {name} in {expected[0].dtype}; the '
            'weights are broken or the training diverged'
        )
    if not expected or [t.shape for t in expected] != [t.shape for t in got]:
        raise ProofError(
            f'the two forms have outputs of different shapes on {name}; nothing was written'
        )
    floor = scale_floor(expected)
    for index, pair in enumerate(zip(expected, got, strict=True)):
        if pair[0].numel():
            yield f'output {index}', *max_difference(*pair, floor)


def _parents(pairs: Iterable[ConvNorm]) -> list[str]:
    return list(dict.fromkeys(pair.parent for pair in pairs))


def _folded_copy(model: nn.Module, parent: str, pairs: Iterable[ConvNorm]) -> nn.Module:
    copied = copy.deepcopy(model.get_submodule(parent))
    for pair in pairs:
        if pair.parent == parent:
            layer, norm = (name.removeprefix(f'{parent}.') for name in (pair.layer, pair.norm))
            children: Any = copied._modules
            tensors = fold_norm(children[layer], children[norm])
            for key, value in zip(('weight', 'bias'), tensors, strict=True):
                setattr(children[layer], key, nn.Parameter(value.to(children[layer].weight)))
            children[norm] = nn.Identity()
    return copied


def _run_alone(unit: nn.Module, other: nn.Module) -> tuple[float, float]:
    """Compare two units on random input of the shape that one of the layers takes."""
    layers: list[Any] = [m for m in unit.modules() if isinstance(m, (_ConvNd, nn.Linear))]
    problem: Exception = ValueError('it has no layer')
    for layer in layers:  # the first of them may belong to squeeze-and-excitation
        if isinstance(layer, nn.Linear):
            shape = [layer.in_features]
        else:
            sizes = zip(layer.kernel_size, layer.dilation, strict=True)
            shape = [layer.in_channels, *((k - 1) * d + 4 for k, d in sizes)]
        generator = torch.Generator().manual_seed(0)
        x = torch.randn([2, *shape], generator=generator).to(layer.weight)
        try:
            return unit_difference(x, unit(x.clone()), other(x.clone()))
        except Exception as error:  # forward methods of the hosts raise anything
            problem = error
    raise problem
