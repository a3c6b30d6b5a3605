"""mmengine's Runner with exact resume, whole files and process groups on the CPU."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import torch.distributed as dist
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.utils.data import DataLoader

from ..errors import InputError
from ..files import atomic_text
from . import channels_last
from .averages import unwrapped
from .resumed_schedules import schedule_settings, warn_of_taken
from .seeding import SeededSampler, seed_samples

# What torch's and mmengine's parts raise about a state that is none of theirs.
_MISFITS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Runner(MMEngineRunner):
    """mmengine's Runner, repaired where it fails on this project's ground.

    - ``--launcher pytorch`` on machines without a GPU: mmengine calls ``torch.cuda.set_device``
      whatever the backend, and hands DDP the ids of devices that are not there. Here the group is
      made with gloo, and SyncBN, which needs GPUs, becomes BN.
    - A resumed run is the unbroken run: see :mod:`mobileone_mm.training.seeding`.
    - Config and checkpoints are written whole or not at all; a checkpoint is removed only after
      its successor is there.
    - The copy of the config is written by :meth:`write_config`, not in the constructor: a run that
      is refused must not write over that of an earlier one, nor a test over that of the training.
    - A model and its EMA in different forms are an error; mmengine swaps them by position.
    - A loader that yields no batch is an error; mmengine would train nothing and report success.
    - ``compile`` compiles the backbone. mmengine compiles the whole training step, whose optimizer
      torch cannot trace (its parameter groups are mmengine's ConfigDicts), and which it would have to
      compile anew for every learning rate.
    - ``channels_last=True``: see :mod:`mobileone_mm.training.channels_last`.
    """

    #: log folders of the Runners of this process, also of those whose constructor failed
    log_dirs: ClassVar[list[Path]] = []

    def setup_env(self, env_cfg: dict) -> None:
        """Join the other processes through gloo where there is no GPU, then do as mmengine does."""
        if self.distributed and not dist.is_initialized() and get_device() == 'cpu':
            timeout = dict(env_cfg.get('dist_cfg', {})).get('timeout')
            join_cpu_group(timeout)
        super().setup_env(env_cfg)
        self.log_dirs.append(Path(self._work_dir, self._timestamp))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes; on the CPU without device ids and SyncBN.

        Before that, as DDP lays its gradients out like the weights, into channels_last if asked for.
        """
        if self._channels_last:
            channels_last.use_channels_last(model, get_device())
            self.logger.info(
                'Channels last: the weights are converted, images before the backbone.'
            )
        if not self.distributed or get_device() != 'cpu':
            return super().wrap_model(model_wrapper_cfg, model)
        if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            self.logger.info('SyncBN needs GPUs: on the CPU it is replaced by BN.')
            model = revert_sync_batchnorm(model)
        self.cfg.pop('sync_bn', None)
        wrapper = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False),
        )
        wrapper.update(model_wrapper_cfg or {}, device_ids=None)
        return super().wrap_model(wrapper, model)

    @property
    def _channels_last(self) -> bool:
        return channels_last.is_asked_for(self.cfg.get(channels_last.KEY))

    def _init_model_weights(self) -> None:
        if not self._channels_last:
            super()._init_model_weights()
            return
        with channels_last.usual_layout(self.model):
            super()._init_model_weights()

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader whose augmentation depends on the seed and the place in the run alone.

        Raises:
            InputError: It would yield no batch.
        """
        if not isinstance(dataloader, dict):
            return MMEngineRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        cfg = dict(dataloader)
        if seed is not None and isinstance(cfg.get('sampler'), dict):
            cfg['sampler'] = dict(type=SeededSampler, sampler=cfg['sampler'], sample_seed=seed)
        loader = MMEngineRunner.build_dataloader(cfg, seed, diff_rank_seed)
        seed_samples(loader)
        if len(loader) == 0:
            raise InputError(
                f'{len(loader.dataset)} images an epoch (repeated ones counted) are too few for one '  # type: ignore[arg-type]
                f'batch of {loader.batch_size or "this size"} a process; lower batch_size or set '
                'drop_last=False'
            )
        return loader

    def load_or_resume(self) -> None:
        """Load a checkpoint or resume from one.

        mmengine takes the schedules of the checkpoint in the place of the config's, without a word: a
        run that is resumed to be longer goes on at the rate where the old one ended. The log says so.

        Raises:
            InputError: The state of the run in it does not fit this run.
        """
        planned = schedule_settings(self)
        try:
            super().load_or_resume()
        except _MISFITS as error:
            if isinstance(error, InputError) or not self._resume:
                raise
            reason = ' '.join(str(error).split())[:200]
            raise InputError(
                f"--resume: the state of the run in '{self._load_from}' does not fit this run "
                f'({type(error).__name__}: {reason}); continue with the config that it began with, or '
                'start anew from its weights with --cfg-options load_from=...'
            ) from error
        warn_of_taken(self, planned)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Register mmengine's hooks, with the project's hooks in or beside their place."""
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') == 'CheckpointHook':
            hooks['checkpoint'] = {**checkpoint, 'type': 'mobileone_mm.CheckpointHook'}
        for name, kind in (
            ('iteration_seed', 'mobileone_mm.IterationSeedHook'),
            ('average_check', 'mobileone_mm.AverageCheckHook'),
        ):
            if hooks.setdefault(name, dict(type=kind)) is None:
                del hooks[name]  # switched off, as mmengine's own hooks can be
        super().register_default_hooks(hooks)
        if self._channels_last:
            self.register_hook(channels_last.ChannelsLastHook())

    def _maybe_compile(self, target: str) -> None:
        compile_cfg = self.cfg.get('compile')
        backbone = getattr(unwrapped(self.model), 'backbone', None)
        if not compile_cfg or not isinstance(backbone, nn.Module):
            super()._maybe_compile(target)
            return
        # In place: the names of the weights stay, and copies of the model are not compiled.
        backbone.compile(**({} if compile_cfg is True else compile_cfg))
        self.logger.info('The backbone is compiled, which takes a while at its first call.')

    def dump_config(self) -> None:
        """Nothing: mmengine calls it in the constructor, before anything is checked."""

    def write_config(self, folder: str) -> None:
        """Write the config into a folder, whole or not at all; the first process does."""
        if self.rank == 0:
            name = Path(self.cfg.filename).name if self.cfg.filename else f'{self.timestamp}.py'
            atomic_text(Path(folder, name).with_suffix('.py'), self.cfg.pretty_text)


def join_cpu_group(timeout: float | None = None) -> None:
    """Join the processes that torchrun started, through gloo.

    Args:
        timeout: Seconds that a collective operation may take; None for torch's default.
    """
    limit = None if timeout is None else timedelta(seconds=timeout)
    os.environ.setdefault('LOCAL_RANK', os.environ['RANK'])
    dist.init_process_group('gloo', timeout=limit)
