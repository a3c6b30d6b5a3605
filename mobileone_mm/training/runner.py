"""mmengine's Runner with exact resume, atomic files and process groups on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.utils.data import DataLoader

from ..config.tree import mapping
from ..errors import InputError, one_line
from ..faults import in_user_code, user_fault
from ..files import atomic_text
from .channels_last import restore_format, use_channels_last
from .divergence import check_weights, non_finite_tensors
from .param_groups import with_defaults
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
        self.message_hub.update_info(_OPTIMIZER, _names(_optimizers(self)))

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
        """Register mmengine's default hooks, with this package's CheckpointHook, and four more."""
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') == 'CheckpointHook':
            hooks['checkpoint'] = {**checkpoint, 'type': 'mobileone_mm.CheckpointHook'}
        for name, kind in (
            ('iteration_seed', 'mobileone_mm.IterationSeedHook'),
            ('average_check', 'mobileone_mm.AverageCheckHook'),
            ('loss_check', 'mobileone_mm.LossCheckHook'),
            ('loss_scale', 'mobileone_mm.LossScaleHook'),
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


#: the key in the message hub, and so in a checkpoint, for the classes of the optimizers
_OPTIMIZER = 'optimizer_class'
Settings = list[tuple[str, dict[str, Any]]]
_ANOTHER_RUN = 'start a new run from the weights with --cfg-options load_from=...'


@contextmanager
def checked_resume(runner: MMEngineRunner) -> Iterator[None]:
    """Turn a state that does not fit into an InputError, and log which settings were replaced.

    mmengine replaces the schedules and the optimizer settings of the config by those of the checkpoint
    and does not say so. A run that is resumed in order to train longer then stays at the rate where
    the old one ended.
    """
    if not runner._resume:
        yield
        return
    planned = _schedules(runner), _optimizer_settings(runner)
    try:
        yield
        _check_optimizers(runner)
    except (InputError, OSError):
        raise
    except Exception as error:  # torch and mmengine raise many kinds for the state of another run
        if in_user_code(error) or user_fault(error):
            raise
        _check_optimizers(runner)
        raise InputError(
            f"--resume: the state in '{runner._load_from}' does not fit this run "
            f'({type(error).__name__}: {one_line(error)[:200]}); resume with the config that the run '
            f'was started with, or {_ANOTHER_RUN}'
        ) from error
    used = _schedules(runner), _optimizer_settings(runner)
    for kind, before, after in zip(('schedule', 'optimizer settings'), planned, used, strict=True):
        _report_changes(runner, kind, before, after)


def _report_changes(runner: MMEngineRunner, kind: str, planned: Settings, used: Settings) -> None:
    """Log which settings of the checkpoint replace those of the config."""
    for (name, own), (_, taken) in zip(planned, used, strict=False):
        changed = [
            f'{key} {taken.get(key)}, not {own[key]}' for key in own if taken.get(key) != own[key]
        ]
        if changed:
            runner.logger.warning(
                f'{name}: the run uses the {kind} of its checkpoint ({", ".join(changed)} as in this '
                f'config). To change that, {_ANOTHER_RUN}'
            )


def _schedules(runner: MMEngineRunner) -> Settings:
    """Return class and settings of each parameter scheduler, in order."""
    found: Any = runner.param_schedulers
    groups = found.values() if isinstance(found, dict) else [found or []]
    progress = ('last_step', 'base_values', 'verbose')  # how far it is, not what it does
    return [
        (
            type(scheduler).__name__,
            {
                key: value
                for key, value in vars(scheduler).items()
                if isinstance(value, (int, float, list)) and key[0] != '_' and key not in progress
            },
        )
        for group in groups
        for scheduler in group
    ]


def _optimizers(runner: MMEngineRunner) -> list[torch.optim.Optimizer]:
    wrapper: Any = runner.optim_wrapper  # of a test a dict or None
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [one.optimizer for one in wrappers if isinstance(one, OptimWrapper)]


def _names(optimizers: list[torch.optim.Optimizer]) -> str:
    return ', '.join(type(optimizer).__name__ for optimizer in optimizers)


def _check_optimizers(runner: MMEngineRunner) -> None:
    """Check that the checkpoint is of a run with the same optimizers.

    torch accepts the state of another class. The first step then fails, or uses it for other numbers.
    """
    optimizers = _optimizers(runner)
    # Absent in a checkpoint of a host's tool.
    named = runner.message_hub.runtime_info.get(_OPTIMIZER)
    lacking = [
        key for o in optimizers for g in o.param_groups for key in o.defaults if key not in g
    ]
    if lacking or named not in (None, _names(optimizers)):
        found = f'is of a run with {named}' if named else f"lacks '{lacking[0]}' of the optimizer"
        raise InputError(
            f"--resume: '{runner._load_from}' {found}, the config has {_names(optimizers)}; resume "
            f'with the optimizer that the run was started with, or {_ANOTHER_RUN}'
        )


def _optimizer_settings(runner: MMEngineRunner) -> Settings:
    """Return class and settings of each optimizer, all values if its parameter groups have several.

    A scheduled setting has its value of the start of the run.
    """
    found = []
    for optimizer in _optimizers(runner):
        settings: dict[str, Any] = {}
        for key in optimizer.defaults:
            values: list[Any] = []
            for group in optimizer.param_groups:
                if (value := _at_start(group, key)) not in values:
                    values.append(value)
            settings[key] = values[0] if len(values) == 1 else values
        found.append((type(optimizer).__name__, settings))
    return found


def _at_start(group: dict[str, Any], key: str) -> Any:
    value = group.get(f'initial_{key}', group.get(key))
    # mmengine schedules the first of them by this name.
    if key == 'betas' and 'initial_momentum' in group:
        value = (group['initial_momentum'], group['betas'][1])
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value
