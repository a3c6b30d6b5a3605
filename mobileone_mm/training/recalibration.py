"""Measure the BN statistics of branches on data, without a change of the function in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..models.block import statistics_unchanged
from ..reparam.algebra import norm_to_affine
from ..reparam.compare import max_difference
from ..reparam.surgery import unfused_blocks

Forward = Callable[[Any], Any]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any], forward: Forward | None = None) -> int:
    """Give the BN layers of all branches the statistics of data, and keep the function in eval mode.

    Scale and shift of each BN compensate its new mean and variance. In training mode, where BN
    normalises with the batch, the function is then close to that of eval mode. With statistics that
    were never measured (branches lifted from a fused kernel) it is another function.

    Args:
        model: Any module with MobileOne in training form; the mode of each part stays.
        batches: Data, a few hundred images in total.
        forward: Runs the model on a batch; ``model(batch)`` by default.

    Returns:
        Number of measured BN layers. Unchanged are those without scale and shift, frozen ones (no
        gradient of the scale) and those with fewer than two values per channel.
    """
    norms = [
        branch.norm
        for _, block in unfused_blocks(model)
        for branch in block.reparam_branches()
        if branch.norm.affine
        and branch.norm.track_running_stats
        and branch.norm.weight.requires_grad
    ]
    with _eval_mode(model), _input_moments(norms) as moments:
        for batch in batches:
            (forward or model)(batch)
    measured = 0
    for norm, sums in zip(norms, moments, strict=True):
        all_reduce(sums)
        count, mean = sums[0], sums[1] / sums[0]
        if int(count[0]) < 2:
            continue
        var = (sums[2] / count - mean**2).clamp(min=0) * count / (count - 1)
        _set_statistics(norm, mean, var)
        measured += 1
    return measured


@torch.no_grad()
def training_jump(model: nn.Module, batch: Any, forward: Forward | None = None) -> float:
    """Return the difference of the outputs in training and eval mode, relative to their scale.

    Statistics, mode and random state of the model stay the same.
    """
    forward = forward or model
    with _eval_mode(model):
        expected = forward(batch)
        devices = {p.device for p in model.parameters() if p.device.type == 'cuda'}
        with torch.random.fork_rng(list(devices)), statistics_unchanged(model):
            for _, block in unfused_blocks(model):
                if any(p.requires_grad for p in block.parameters()):  # type: ignore[attr-defined]
                    block.train()  # type: ignore[attr-defined]
            return max_difference(expected, forward(batch))[1]


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a block; afterwards each module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _input_moments(norms: list[_BatchNorm]) -> Iterator[list[Tensor]]:
    """Sum count, values and squares of each BN's input inside the block: a (3, C) tensor per BN.

    The sums are float64 on the CPU. Each batch adds its mean and centred variance, which torch
    computes accurately in float32: float32 sums of squares would lose the variance of data whose mean
    is large (mean 1000, standard deviation 0.1), and some devices (MPS) have no float64.
    """
    moments = [torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms]

    def add(sums: Tensor, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().transpose(0, 1).flatten(1)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        var, mean = (t.cpu().double() for t in torch.var_mean(values, dim=1, correction=0))
        sums.add_(values.shape[1] * torch.stack([torch.ones_like(mean), mean, var + mean**2]))

    with ExitStack() as hooks:
        for norm, sums in zip(norms, moments, strict=True):
            hooks.enter_context(norm.register_forward_pre_hook(partial(add, sums)))
        yield moments


def _set_statistics(norm: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Set the statistics; change scale and shift so that the function in eval mode stays."""
    scale, shift = norm_to_affine(norm)
    norm.running_mean.copy_(mean)  # type: ignore[union-attr]
    norm.running_var.copy_(var)  # type: ignore[union-attr]
    # Read back, so that scale and shift also compensate the rounding of the statistics.
    mean, var = (t.detach().cpu().double() for t in (norm.running_mean, norm.running_var))  # type: ignore[union-attr]
    norm.weight.copy_(scale * torch.sqrt(var + norm.eps))
    norm.bias.copy_(shift + mean * scale)
