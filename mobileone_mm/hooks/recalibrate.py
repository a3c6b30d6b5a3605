"""A hook that measures the BN statistics of lifted branches before training."""

from __future__ import annotations

from itertools import islice
from typing import Any

from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from ..models.arguments import check_integer
from ..registry import HOOKS
from ..reparam.surgery import unfused_blocks
from ..training.averages import ema_hooks
from ..training.recalibration import recalibrate, training_jump
from ..training.run_model import require_units, unwrapped
from ..training.seeding import SeededSampler


@HOOKS.register_module()
class RecalibrateHook(Hook):
    """Measure the BN statistics of MobileOne's branches before training starts.

    For a run in training form that starts from fused weights (``load_from``, or ``init_cfg`` of type
    ``Pretrained``). Such weights are lifted into branches with mean 0 and variance 1, so in training
    mode the network would compute another function than the loaded one. The log says how much the
    features of training mode and eval mode differ before and after. An EMA model starts from the
    measured weights. Resumed runs and frozen stages do not change.

    Args:
        num_batches: Number of augmented training batches to measure on, at least 1.

    Raises:
        TypeError, ValueError: ``num_batches`` is not an integer of at least 1.
        InputError: The model has no re-parameterisable unit.
    """

    priority = 'VERY_LOW'  # after the hooks that prepare the model

    def __init__(self, num_batches: int = 50) -> None:
        self.num_batches = check_integer('num_batches', num_batches, 1)

    def before_train(self, runner: Any) -> None:
        if runner._resume:
            return
        model: Any = unwrapped(runner.model)
        require_units(model, 'RecalibrateHook')
        if next(unfused_blocks(model), None) is None:
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
    """Return another loader of the same data.

    An endless sampler (mmengine's InfiniteSampler) has one iterator, which would lose the batches that
    are read here.
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
