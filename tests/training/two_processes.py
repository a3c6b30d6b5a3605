"""What the runs of two processes import: BN over all processes on the CPU, and a hook."""

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


@HOOKS.register_module(force=True)
class DumpRank(Hook):
    """Writes the weights of each process."""

    def after_train(self, runner):
        expected = 'MMDistributedDataParallel' if runner.world_size > 1 else 'ImageClassifier'
        assert type(runner.model).__name__ == expected
        model = getattr(runner.model, 'module', runner.model)
        torch.save(model.state_dict(), f'{runner.work_dir}/rank_{runner.rank}.pt')


@HOOKS.register_module(force=True)
class Diverge(Hook):
    """Makes the loss of iteration 3, or a BN statistic after iteration 2, NaN in one process."""

    def __init__(self, rank: int, loss: bool) -> None:
        self.rank, self.loss = rank, loss

    def before_train(self, runner):
        parse_losses = runner.model.module.parse_losses

        def parsed(losses):
            loss, values = parse_losses(losses)
            if self.loss and (runner.rank, runner.iter) == (self.rank, 2):
                values['loss'] = values['loss'] * float('nan')
            return loss, values

        runner.model.module.parse_losses = parsed

    def after_train_iter(self, runner, *args, **kwargs):
        if not self.loss and (runner.rank, runner.iter) == (self.rank, 1):
            next(m for m in runner.model.modules() if hasattr(m, 'running_var')).running_var[0] = (
                torch.nan
            )


@MODELS.register_module(force=True)
class GlooSyncBN(nn.BatchNorm2d):
    """Mean and variance over all processes, with gradients, where torch's SyncBN does not run.

    The batches of all processes must have one size.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        processes = dist.get_world_size()
        mean = all_reduce(x.mean((0, 2, 3))) / processes
        centred = x - mean[:, None, None]
        variance = all_reduce((centred**2).mean((0, 2, 3))) / processes
        with torch.no_grad():
            count = processes * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight / (variance + self.eps).sqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]
