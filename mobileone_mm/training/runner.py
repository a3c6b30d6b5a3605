"""mmengine's Runner with exact resume, atomic files and process groups on the CPU."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.utils.data import DataLoader

from ..config.tree import mapping
from ..errors import InputError
from ..files import atomic_text
from .channels_last import restore_format, use_channels_last
from .divergence import check_weights, non_finite_tensors
from .param_groups import with_defaults
from .resume import checked_resume, note_optimizers
from .run_model import unwrapped
from .seeding import SeededSampler, seed_samples


class Runner(MMEngineRunner):
    """mmengine's Runner with these corrections and additions.

    - ``--launcher pytorch`` works on machines without a GPU. mmengine calls
      ``torch.cuda.set_device`` for every backend and passes GPU ids to DDP. Here the process group
      uses gloo, and BN replaces SyncBN, which needs GPUs.
    - A resumed run equals the uninterrupted run: see :mod:`mobileone_mm.training.seeding`.
    - :meth:`write_config` writes the copy of the config, not the constructor: a run that is refused
      must not overwrite the config of an earlier run, nor a test the config of the training.
    - A TypeError in a hook keeps its traceback; mmengine raises another one in its place.
    - A model and its EMA in different forms are an error, as is a dataloader without a batch.
    - A loss, or a tensor of a checkpoint, that becomes NaN or Inf ends the run. See
      :mod:`mobileone_mm.training.divergence`.
    - ``compile`` compiles the backbone. mmengine compiles the whole training step; torch cannot trace
      its optimizer (the parameter groups are mmengine's ConfigDicts), and would compile it again for
      every learning rate.
    """

    #: Log folders of all Runners of this process, including those whose constructor failed.
    log_dirs: ClassVar[list[Path]] = []
    #: Names of the tensors that hold NaN or Inf when the training begins, such as a mask of -Inf.
    non_finite_at_start: frozenset[str] = frozenset()

    def setup_env(self, env_cfg: dict) -> None:
        """Join the process group of torchrun through gloo if there is no GPU; then as mmengine."""
        if self.distributed and not dist.is_initialized() and get_device() == 'cpu':
            seconds = mapping(env_cfg.get('dist_cfg')).get('timeout')
            os.environ.setdefault('LOCAL_RANK', os.environ['RANK'])
            limit = None if seconds is None else timedelta(seconds=seconds)
            dist.init_process_group('gloo', timeout=limit)
        super().setup_env(env_cfg)
        self.log_dirs.append(Path(self._work_dir, self._timestamp))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes; on the CPU without device ids and SyncBN.

        channels_last comes first: DDP gives its gradient buckets the memory format of the weights.
        """
        if self.cfg.get('channels_last'):
            use_channels_last(model, get_device())
            self.logger.info('channels_last: weights and the inputs of the backbone are converted.')
        if not self.distributed or get_device() != 'cpu':
            return super().wrap_model(model_wrapper_cfg, model)
        if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            self.logger.info('SyncBN needs GPUs; BN replaces it on the CPU.')
            model = revert_sync_batchnorm(model)
        self.cfg.pop('sync_bn', None)
        wrapper = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False),
        )
        wrapper.update(model_wrapper_cfg or {}, device_ids=None)
        return super().wrap_model(wrapper, model)

    def _init_model_weights(self) -> None:
        # torch fills a weight with random numbers in the order of its memory.
        self.model.to(memory_format=torch.contiguous_format)
        super()._init_model_weights()
        restore_format(self.model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a dataloader; its augmentation depends only on the seed and the position in the run."""
        if not isinstance(dataloader, dict):
            return MMEngineRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        cfg = dict(dataloader)
        if seed is not None and isinstance(cfg.get('sampler'), dict):
            cfg['sampler'] = dict(type=SeededSampler, sampler=cfg['sampler'], sample_seed=seed)
        loader = MMEngineRunner.build_dataloader(cfg, seed, diff_rank_seed)
        seed_samples(loader)
        if len(loader) == 0:  # mmengine would train nothing and report success
            raise InputError(
                f'the dataloader has {len(loader.dataset)} images per epoch (repeats included), '  # type: ignore[arg-type]
                f'fewer than one batch of {loader.batch_size or "this size"} per process; lower '
                'batch_size or set drop_last=False'
            )
        return loader

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer; a missing learning rate or weight decay is that of its class."""
        optimizer = mapping(mapping(optim_wrapper).get('optimizer'))
        if optimizer:
            optim_wrapper = {**optim_wrapper, 'optimizer': with_defaults(optimizer)}
        return super().build_optim_wrapper(optim_wrapper)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a method of all hooks that have it."""
        for hook in self._hooks:
            if hasattr(hook, fn_name):
                getattr(hook, fn_name)(self, **kwargs)

    def load_or_resume(self) -> None:
        with checked_resume(self):
            super().load_or_resume()
        self.non_finite_at_start = frozenset(non_finite_tensors(self))
        note_optimizers(self)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint; NaN or Inf in its weights, buffers or averages are an InputError."""
        check_weights(self, together=False)  # hooks may call this in the main process only
        super().save_checkpoint(*args, **kwargs)

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint; correct the iteration if an epoch has another length now.

        mmengine starts at the beginning of an epoch, with the iteration of the checkpoint. With another
        batch size that is the iteration of another epoch, and the ETA can become negative.
        """
        super().resume(*args, **kwargs)
        loop, done, unit = self.train_loop, self.iter, 'iter'
        if isinstance(loop, EpochBasedTrainLoop):
            done, unit = loop.epoch, 'epoch'
            first = loop.epoch * len(loop.dataloader)
            if loop.iter != first:
                self.logger.warning(
                    f'--resume: an epoch has {len(loop.dataloader)} iterations; epoch {loop.epoch + 1} '
                    f'starts at iteration {first + 1}, not at iteration {loop.iter + 1} of the '
                    'checkpoint'
                )
                loop._iter = first
        last = getattr(loop, f'max_{unit}s')
        if done >= last:
            self.logger.warning(
                f"--resume: '{self._load_from}' is the end of its run ({unit} {done} of {last}), so "
                f'nothing is trained; to train longer, raise train_cfg.max_{unit}s'
            )

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """Register mmengine's default hooks, with this package's CheckpointHook, and some more."""
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') == 'CheckpointHook':
            hooks['checkpoint'] = {**checkpoint, 'type': 'mobileone_mm.CheckpointHook'}
        for name, kind in (
            ('iteration_seed', 'mobileone_mm.IterationSeedHook'),
            ('average_check', 'mobileone_mm.AverageCheckHook'),
            ('loss_check', 'mobileone_mm.LossCheckHook'),
            ('loss_scale', 'mobileone_mm.LossScaleHook'),
            ('evaluated_images', 'mobileone_mm.EvaluatedImagesHook'),
            ('prediction_check', 'mobileone_mm.PredictionCheckHook'),
        ):
            if hooks.setdefault(name, dict(type=kind)) is None:
                del hooks[name]  # None switches a default hook off, as in mmengine
        super().register_default_hooks(hooks)
        if self.cfg.get('channels_last'):
            self.register_hook(dict(type='mobileone_mm.ChannelsLastHook'))

    def _maybe_compile(self, target: str) -> None:
        compile_cfg = self.cfg.get('compile')
        backbone = getattr(unwrapped(self.model), 'backbone', None)
        if not compile_cfg or not isinstance(backbone, nn.Module):
            super()._maybe_compile(target)
            return
        # In place: state-dict keys stay the same, and copies of the model are not compiled.
        backbone.compile(**({} if compile_cfg is True else compile_cfg))
        self.logger.info('The backbone is compiled; its first iteration takes longer.')

    def dump_config(self) -> None:
        """Do nothing; mmengine calls it in the constructor. See :meth:`write_config`."""

    def write_config(self, folder: str) -> None:
        """Write the config into a folder atomically, in the main process."""
        if self.rank == 0:
            name = Path(self.cfg.filename).name if self.cfg.filename else f'{self.timestamp}.py'
            atomic_text(Path(folder, name).with_suffix('.py'), self.cfg.pretty_text)
