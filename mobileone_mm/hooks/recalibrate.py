"""A hook that measures the BN statistics of lifted branches before training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..models.argument_checks import check_integer
from ..models.block import statistics_unchanged
from ..registry import HOOKS
from ..reparam.algebra import norm_to_affine
from ..reparam.compare import max_difference
from ..reparam.surgery import unfused_blocks
from ..training.run_model import has_branches, unwrapped
from ..training.seeding import SeededSampler
from .average_check import ema_hooks

Forward = Callable[[Any], Any]


@HOOKS.register_module()
class RecalibrateHook(Hook):
    """Measure the BN statistics of MobileOne's branches before training starts.

    For a run in training form that starts from fused weights (``load_from``, or ``init_cfg`` of type
    ``Pretrained``). Such weights are lifted into branches with mean 0 and variance 1, so in training
    mode the network would compute another function than the loaded one; the log has the difference
    before and after. An EMA model starts from the measured weights. Resumed runs and frozen stages do
    not change.

    Args:
        num_batches: Number of augmented training batches to measure on, at least 1.

    Raises:
        InputError: The model has no re-parameterisable unit.
    """

    priority = 'VERY_LOW'  # after the hooks that prepare the model

    def __init__(self, num_batches: int = 50) -> None:
        self.num_batches = check_integer('num_batches', num_batches, 1)

    def before_train(self, runner: Any) -> None:
        if runner._resume:
            return
        model: Any = unwrapped(runner.model)
        if not has_branches(model, 'RecalibrateHook'):
            runner.logger.info('The model is in deploy form and has no BN statistics to measure.')
            return

        def inputs(data: Any) -> Any:
            return model.data_preprocessor(data, True)['inputs']

        forward = model.extract_feat
        loader = _separate_loader(runner.train_dataloader, runner.seed)
        # One batch for both: batch augmentation (Mixup, CutMix) is random.
        first = inputs(next(iter(loader)))
        before = training_jump(model, first, forward)
        count = recalibrate(model, map(inputs, islice(loader, self.num_batches)), forward)
        after = training_jump(model, first, forward)
        runner.logger.info(
            f'Measured the statistics of {count} BN layers on {min(len(loader), self.num_batches)} '
            f'batches. Relative difference of the features in training mode and eval mode: '
            f'{before:.2g} before, {after:.2g} after.'
        )
        for hook in ema_hooks(runner):
            hook.ema_model.module.load_state_dict(model.state_dict())


def _separate_loader(loader: Any, seed: int) -> DataLoader:
    # An endless sampler (mmengine's InfiniteSampler) has one iterator, which would lose the batches.
    order = dict(type='mmengine.DefaultSampler', shuffle=True)
    sampler = SeededSampler(order, loader.dataset, seed, seed)
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


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any], forward: Forward | None = None) -> int:
    """Set the BN statistics of all branches to those of the data; keep the function in eval mode.

    Scale and shift of each BN compensate its new mean and variance. In training mode, where BN
    normalises with the batch, the function is then close to that of eval mode. ``forward`` runs the
    model on a batch. Returns the number of measured BN layers. Layers without scale and shift, frozen
    ones and those with fewer than two values per channel do not change.
    """
    norms: list[Any] = [
        branch.norm
        for _, block in unfused_blocks(model)
        for branch in block.reparam_branches()
        if branch.norm.affine
        and branch.norm.track_running_stats
        and branch.norm.weight.requires_grad
    ]
    # Count, values and squares of each BN's input, in float64 on the CPU: float32 sums of squares would
    # lose a small variance around a large mean, and some devices (MPS) have no float64.
    moments = [torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms]

    def add(sums: Tensor, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().transpose(0, 1).flatten(1)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        var, mean = (t.cpu().double() for t in torch.var_mean(values, dim=1, correction=0))
        sums.add_(values.shape[1] * torch.stack([torch.ones_like(mean), mean, var + mean**2]))

    with _eval_mode(model), ExitStack() as hooks:
        for norm, sums in zip(norms, moments, strict=True):
            hooks.enter_context(norm.register_forward_pre_hook(partial(add, sums)))
        for batch in batches:
            (forward or model)(batch)
    measured = 0
    for norm, sums in zip(norms, moments, strict=True):
        all_reduce(sums)
        count, mean = sums[0], sums[1] / sums[0]
        if int(count[0]) < 2:
            continue
        scale, shift = norm_to_affine(norm)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((sums[2] / count - mean**2).clamp(min=0) * count / (count - 1))
        # Read back, so that scale and shift also compensate the rounding of the statistics.
        mean, var = (t.detach().cpu().double() for t in (norm.running_mean, norm.running_var))
        norm.weight.copy_(scale * torch.sqrt(var + norm.eps))
        norm.bias.copy_(shift + mean * scale)
        measured += 1
    return measured


@torch.no_grad()
def training_jump(model: nn.Module, batch: Any, forward: Forward | None = None) -> float:
    """Return the relative difference of the outputs in training and eval mode; change no state."""
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
    """Put a model into eval mode for a block, and each module back into its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
