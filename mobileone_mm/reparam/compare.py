"""Random weights and statistics, and the difference of two outputs: what proofs are made of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def randomize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give a module random weights *and* random BN statistics, in place, and return it.

    With fresh statistics (mean 0, variance 1) BN is nearly the identity, and a wrong fusion of it
    goes unseen. Kernels keep a spread of 1 / sqrt(fan in), so that activations stay in range.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float64) * (high - low) + low

    for child in module.modules():
        for tensor in child.parameters(recurse=False):
            if isinstance(child, _BatchNorm) or tensor.ndim < 2:
                continue
            fan_in = max(1, tensor[0].numel())
            tensor.copy_(
                torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / fan_in**0.5
            )
        if isinstance(child, _BatchNorm):
            for name, low, high in (
                ('weight', 0.1, 0.6),
                ('bias', -0.3, 0.3),
                ('running_mean', -0.5, 0.5),
                ('running_var', 0.5, 2.0),
            ):
                value = getattr(child, name)
                if value is not None:
                    value.copy_(uniform(value, low, high))
        elif getattr(child, 'bias', None) is not None and isinstance(child.bias, Tensor):
            child.bias.copy_(uniform(child.bias, -0.2, 0.2))
    return module


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within it, GPUs multiply float32 as float32: TF32 has three digits, as few as a real error."""
    with warnings.catch_warnings():  # newer torch has other names for the same switches
        warnings.simplefilter('ignore')
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def tensors_of(output: Any) -> Iterator[Tensor]:
    """Floating-point tensors of a nested output (tuples, lists, mappings), depth first."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from tensors_of(value)


def max_difference(first: Any, second: Any) -> tuple[float, float]:
    """Greatest absolute difference of two nested outputs, and the same relative to the scale.

    The relative one is, for each pair of tensors, the greatest absolute difference divided by the
    greatest magnitude of the first; the largest of these counts.

    Raises:
        ValueError: The outputs have no tensors, or differ in number or shape of tensors.
    """
    pairs = list(tensors_of(first)), list(tensors_of(second))
    shapes = tuple([tuple(t.shape) for t in side] for side in pairs)
    if not pairs[0] or shapes[0] != shapes[1]:
        raise ValueError(f'outputs: shapes {shapes[0]} and {shapes[1]} cannot be compared')
    absolute = relative = 0.0
    for a, b in zip(*pairs, strict=True):
        if a.numel() == 0:
            continue
        expected = a.detach().cpu().double()
        difference = float((expected - b.detach().cpu().double()).abs().max())
        if math.isnan(difference):  # NaN on either side is never equal
            return math.inf, math.inf
        absolute = max(absolute, difference)
        relative = max(relative, difference / max(float(expected.abs().max()), 1e-30))
    return absolute, relative
