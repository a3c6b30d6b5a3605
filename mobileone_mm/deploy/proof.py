"""Proof that two forms of a whole model are one function, on data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ProofError
from ..reparam import reparameterize_model
from ..reparam.proof import tensors_of
from ..reparam.surgery import unfused_blocks

#: greatest difference in float64, relative to the scale of the output: the algebra alone
FLOAT64_TOLERANCE = 1e-9
#: the same in the model's own dtype, in units of its machine epsilon: 1.2e-4 in float32
OWN_TOLERANCE_EPS = 1000


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


class RawForward:
    """The raw outputs of a host's model: what its heads give before any post-processing.

    NMS and top-k turn a difference of the last digit into another list. For the same reason the
    proposals of a two-stage detector are found once, by the first model, and given to both.
    """

    def __init__(self, proposer: nn.Module) -> None:
        self.proposer: Any = proposer
        self._proposals: tuple[Tensor, Any] | None = None

    def __call__(self, model: Any, inputs: Tensor) -> list[Tensor]:
        """All floating-point tensors of the raw outputs of a model."""
        samples = _samples(inputs)
        if hasattr(model, 'roi_head') and hasattr(model, 'rpn_head'):
            features = model.extract_feat(inputs)
            proposals = self._find_proposals(inputs, samples)
            rois = model.roi_head.forward(features, proposals, samples)
            return list(tensors_of([features, model.rpn_head(features), rois]))
        try:
            return list(tensors_of(model(inputs, samples, mode='tensor')))
        except NotImplementedError:
            return list(tensors_of(model.extract_feat(inputs)))

    def _find_proposals(self, inputs: Tensor, samples: list[Any]) -> Any:
        if self._proposals is None or self._proposals[0] is not inputs:
            features = self.proposer.extract_feat(inputs)
            found = self.proposer.rpn_head.predict(features, samples, rescale=False)
            for proposal in found:
                proposal.bboxes = proposal.bboxes.to(inputs.dtype)
            self._proposals = inputs, found
        return self._proposals[1]


def prove_algebra(model: nn.Module, inputs: Iterable[tuple[str, Tensor]]) -> list[Difference]:
    """Compare a model with its fused copy, all in float64.

    Raises:
        ProofError: They differ by more than :data:`FLOAT64_TOLERANCE`.
        InputError: The model's outputs are not finite.
    """
    double = copy.deepcopy(model).double()
    fused = reparameterize_model(double)
    return compare_models(double, fused, inputs, torch.float64, FLOAT64_TOLERANCE)


@torch.no_grad()
def compare_models(
    first: nn.Module,
    second: nn.Module,
    inputs: Iterable[tuple[str, Tensor]],
    dtype: torch.dtype,
    tolerance: float,
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

    Raises:
        ProofError: A difference is beyond the tolerance, or the outputs cannot be compared.
        InputError: The first model's outputs are not finite.
    """
    forward = RawForward(first)
    differences: list[Difference] = []
    short = str(dtype).removeprefix('torch.')
    with exact_arithmetic():
        for name, given in inputs:
            tensor = given.to(dtype)
            with _unit_differences(first, second) as units:
                expected = forward(first, tensor)
            got = forward(second, tensor)
            if not all(bool(torch.isfinite(t).all()) for t in expected):
                raise InputError(
                    f'checkpoint: the output of the model is not finite on {name} in {short}; the '
                    'weights are broken or the training diverged'
                )
            if not expected or [t.shape for t in expected] != [t.shape for t in got]:
                raise ProofError(
                    f'the two forms have outputs of different shapes on {name}; nothing was written'
                )
            found = [*_output_differences(expected, got), max(units, key=lambda unit: unit[2])]
            differences += [Difference(name, short, *values) for values in found]
    worst = max(differences, key=lambda difference: difference.relative)
    if not worst.relative <= tolerance:
        raise ProofError(
            f'the fused model differs from the original by {worst.relative:.2g} of the scale of '
            f'{worst.output} on {worst.input} in {short} (allowed: {tolerance:.2g}); nothing was '
            'written'
        )
    return differences


def own_tolerance(dtype: torch.dtype) -> float:
    """Greatest relative difference that rounding in the dtype explains."""
    return OWN_TOLERANCE_EPS * torch.finfo(dtype).eps


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within it, GPUs multiply float32 as float32: TF32 has three digits, as few as a real error."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def _unit_differences(
    first: nn.Module, second: nn.Module
) -> Iterator[list[tuple[str, float, float]]]:
    """Within it, every run of a unit of the first model is repeated by the second model's unit.

    Yields a list that fills with the unit's name, absolute and relative difference. Outputs are
    compared at once, so that one pair of them is in memory at a time.
    """
    found: list[tuple[str, float, float]] = []

    def compare(name: str, other: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            got = other(*args)
            if got.shape != output.shape:
                found.append((name, math.inf, math.inf))
                return
            # A unit whose output is next to nothing has no digits of its own to compare.
            floor = 1e-3 * _greatest(args[0])
            absolute = _greatest(output.double() - got.double())
            found.append((name, absolute, absolute / max(_greatest(output), floor, 1e-30)))

        return hook

    handles = [
        block.register_forward_hook(compare(name, second.get_submodule(name)))  # type: ignore[attr-defined]
        for name, block in unfused_blocks(first)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _output_differences(
    expected: list[Tensor], got: list[Tensor]
) -> Iterator[tuple[str, float, float]]:
    scales = [_greatest(t) for t in expected]
    # An output that is next to nothing beside the others has no digits of its own to compare.
    floor = max(1e-3 * max(scales), 1e-30)
    for index, (a, b, scale) in enumerate(zip(expected, got, scales, strict=True)):
        absolute = _greatest(a.double() - b.double())
        yield f'output {index}', absolute, absolute / max(scale, floor)


def _greatest(tensor: Tensor) -> float:
    """Greatest magnitude; infinite if there is a NaN, which equals nothing."""
    value = float(tensor.detach().abs().max()) if tensor.numel() else 0.0
    return math.inf if math.isnan(value) else value


def _samples(inputs: Tensor) -> list[Any]:
    from mmengine.structures import BaseDataElement

    shape = tuple(inputs.shape[-2:])
    info = dict(
        img_shape=shape,
        ori_shape=shape,
        pad_shape=shape,
        batch_input_shape=shape,
        scale_factor=(1.0, 1.0),
    )
    return [BaseDataElement(metainfo=info) for _ in inputs]
