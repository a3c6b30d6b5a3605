"""Statistics of lifted branches, measured on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ..models.block import statistics_unchanged
from ..registry import HOOKS
from ..reparam.algebra import norm_to_affine
from ..reparam.compare import max_difference
from ..reparam.surgery import unfused_blocks
from ..training.averages import unwrapped
from ..training.seeding import SeededSampler
from ..training.units import require_units

Forward = Callable[[Any], Any]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any], forward: Forward | None = None) -> int:
    """Give the branches of a model the statistics of data, without changing its function.

    In eval mode the function stays exactly what it was: scale and shift of each normalisation take
    up what its mean and variance give. In training mode, where BN normalises by the batch, it then
    stays near that function, instead of jumping to another one as weights do whose statistics were
    never measured (those that were lifted from a fused kernel).

    Args:
        model: Any module with MobileOne in training form; its mode does not matter and stays.
        batches: Data, some hundred images in all.
        forward: Runs the model on a batch; ``model(batch)`` by default.

    Returns:
        How many normalisations were measured. Those without scale and shift stay as they are, as do
        frozen ones (no gradient of the scale) and those that saw less than two values per channel.
    """
    norms = [
        branch.norm
        for _, block in unfused_blocks(model)
        for branch in block.reparam_branches()
        if branch.norm.affine
        and branch.norm.track_running_stats
        and branch.norm.weight.requires_grad
    ]
    with _as_in_eval(model), _measuring(norms) as sums:
        for batch in batches:
            (forward or model)(batch)
    measured = 0
    for norm, total in zip(norms, sums, strict=True):
        all_reduce(total)
        count = float(total[0, 0])
        if count < 2:
            continue
        mean = total[1] / count
        var = (total[2] / count - mean**2).clamp(min=0) * count / (count - 1)
        _put(norm, mean.cpu(), var.cpu())
        measured += 1
    return measured


@torch.no_grad()
def training_jump(model: nn.Module, batch: Any, forward: Forward | None = None) -> float:
    """How far the output in training mode is from that in eval mode, relative to its scale.

    Statistics, mode and random state of the model stay as they are.
    """
    forward = forward or model
    with _as_in_eval(model):
        expected = forward(batch)
        devices = {p.device for p in model.parameters() if p.device.type == 'cuda'}
        with torch.random.fork_rng(list(devices)), statistics_unchanged(model):
            for block in dict(unfused_blocks(model)).values():
                if any(p.requires_grad for p in block.parameters()):  # type: ignore[attr-defined]
                    block.train()  # type: ignore[attr-defined]
            return max_difference(expected, forward(batch))[1]


@HOOKS.register_module()
class RecalibrateHook(Hook):
    """Measures the statistics of MobileOne's branches before training starts.

    For a run in training form that starts from fused weights (``load_from``, or ``init_cfg`` of type
    ``Pretrained``): these are written into the branches with neutral statistics, and the first step
    would otherwise train another function than the one that was loaded. The log says how far the
    function jumps before and after. A run that resumes is left alone, as is a frozen stage. An EMA
    model starts from the measured weights.

    Args:
        num_batches: Batches of the training data, as it is augmented, to measure on; at least 1.

    Raises:
        ValueError: ``num_batches`` is no integer of at least 1.
        InputError: The model has no re-parameterisable unit.
    """

    priority = 'VERY_LOW'  # after the hooks that prepare the model

    def __init__(self, num_batches: int = 50) -> None:
        if type(num_batches) is not int or num_batches < 1:
            raise ValueError(f'num_batches: got {num_batches!r}; an integer from 1 is needed')
        self.num_batches = num_batches

    def before_train(self, runner: Any) -> None:
        if runner._resume:
            return
        model: Any = unwrapped(runner.model)
        require_units(model, 'RecalibrateHook')
        if next(unfused_blocks(model), None) is None:
            runner.logger.info('The model is in deploy form: there are no statistics to measure.')
            return

        def inputs(data: Any) -> Any:
            return model.data_preprocessor(data, True)['inputs']

        forward = model.extract_feat
        loader = _apart(runner.train_dataloader, runner.seed)
        # Once: batch augmentation (Mixup, CutMix) is drawn anew each time.
        first = inputs(next(iter(loader)))
        before = training_jump(model, first, forward)
        count = recalibrate(model, map(inputs, islice(loader, self.num_batches)), forward)
        after = training_jump(model, first, forward)
        runner.logger.info(
            f'Statistics of {count} normalisations measured on {min(len(loader), self.num_batches)} '
            f'batches. Features in training mode differ from those in eval mode by {before:.2g} of '
            f'their scale before, by {after:.2g} after.'
        )
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.ema_model.module.load_state_dict(model.state_dict())


def _apart(loader: Any, seed: int) -> DataLoader:
    """A loader of the same data in another one's place.

    An endless sampler (mmengine's InfiniteSampler) goes on where it was left, and ends for good with
    an iterator that is given up.
    """
    sampler = SeededSampler(
        dict(type='mmengine.DefaultSampler', shuffle=True), loader.dataset, seed, seed
    )
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None) or 1
    return DataLoader(
        loader.dataset,
        batch_size=size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        drop_last=len(sampler) > size,
    )


@contextmanager
def _as_in_eval(model: nn.Module) -> Iterator[None]:
    """Within it, the model is in eval mode; afterwards each module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _measuring(norms: list[_BatchNorm]) -> Iterator[list[Tensor]]:
    """Within it, count, sum and sum of squares per channel of what each normalisation gets."""
    sums = [
        torch.zeros(3, norm.num_features, dtype=_wide(norm), device=norm.weight.device)
        for norm in norms
    ]

    def add(total: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].detach().to(total.dtype).transpose(0, 1).flatten(1)
            total[0] += values.shape[1]
            total[1] += values.sum(1)
            total[2] += values.square().sum(1)

        return hook

    handles = [
        norm.register_forward_pre_hook(add(total)) for norm, total in zip(norms, sums, strict=True)
    ]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def _wide(norm: _BatchNorm) -> torch.dtype:
    # Some devices (MPS) have no float64.
    return torch.float32 if norm.weight.device.type == 'mps' else torch.float64


def _put(norm: _BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Set the statistics, and scale and shift so that the function in eval mode is the same."""
    scale, shift = norm_to_affine(norm)
    # As they are stored, so that what is rounded there is made up for here.
    norm.running_mean.copy_(mean)  # type: ignore[union-attr]
    norm.running_var.copy_(var)  # type: ignore[union-attr]
    mean, var = (t.detach().cpu().double() for t in (norm.running_mean, norm.running_var))  # type: ignore[union-attr]
    norm.weight.copy_(scale * torch.sqrt(var + norm.eps))
    norm.bias.copy_(shift + mean * scale)
