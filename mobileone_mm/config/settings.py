"""Command-line flags of the tools, merged into a config as OpenMMLab's tools do it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from ..errors import InputError
from ..training.folders import latest_checkpoint
from ..weights.reading import read_checkpoint

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
HOSTS = {'mmpretrain': 'mmpretrain', 'mmdet': 'mmdet', 'mmseg': 'mmsegmentation'}
_IMAGE_LOADERS = (
    'LoadImage',
    'LoadImageFromFile',
    'mmcv.LoadImageFromFile',
    'mobileone_mm.LoadImage',
)
#: transforms of mmpretrain that have a faster twin of the same name here
_FASTER = ('RandAugment', 'RandomResizedCrop')
# The first one is mmseg's only where mmseg is the default scope: mmdet has its own of that name.
_MASK_LOADERS = ('LoadAnnotations', 'mmseg.LoadAnnotations', 'mobileone_mm.LoadSegAnnotations')


def use_scope(cfg: Config) -> str | None:
    """Make the config's host the default scope of this process, and name it.

    Raises:
        InputError: The host is not installed.
    """
    scope = cfg.get('default_scope')
    if scope is None:
        return None
    if importlib.util.find_spec(scope) is None:
        package = HOSTS.get(scope, scope)
        raise InputError(
            f"config: default_scope is '{scope}', which is not installed; install {package} "
            f'(onedl-{package.replace("mmdet", "mmdetection")} in the OneDL distribution)'
        )
    DefaultScope.get_instance(f'{scope}-{datetime.now().timestamp()}', scope_name=scope)
    return scope


def fit_loaders(cfg: Config) -> None:
    """Settings of the loaders that depend on the machine or that a host's own tool adds.

    mmpretrain's tool adds ``collate_fn``, pinned memory and persistent workers; its configs rely on
    that. torch refuses persistent workers without workers, and warns of pinning without a GPU.
    """
    host_defaults = cfg.get('default_scope') == 'mmpretrain'
    for name in LOADERS:
        loader = cfg.get(name)
        if not isinstance(loader, dict):
            continue
        if host_defaults:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', True)
        if not loader.get('num_workers'):
            loader['persistent_workers'] = False
        if get_device() == 'cpu':
            loader['pin_memory'] = False


def survive_broken_files(cfg: Config, stop: bool = False) -> None:
    """Put loaders that survive a broken file in the place of the hosts', in all pipelines.

    See :class:`~mobileone_mm.data.loading.LoadImage` for images and
    :class:`~mobileone_mm.data.masks.LoadSegAnnotations` for mmseg's masks. Where the config names
    these loaders itself, it says what happens.

    Args:
        cfg: The config; changed in place.
        stop: End the run at a broken file instead, whatever the config says.
    """
    masks = _MASK_LOADERS if cfg.get('default_scope') == 'mmseg' else _MASK_LOADERS[1:]
    for key in (*LOADERS, 'custom_hooks', 'tta_pipeline'):
        training = key in ('train_dataloader', 'custom_hooks')
        for transform in _transforms(cfg.get(key), _IMAGE_LOADERS):
            _replace(transform, 'LoadImage', 'skip' if training else 'blank', stop)
        for transform in _transforms(cfg.get(key), masks):
            _replace(transform, 'LoadSegAnnotations', 'skip' if training else 'ignore', stop)
            head = (cfg.get('model') or {}).get('decode_head') or {}
            head = head[-1] if isinstance(head, (list, tuple)) else head
            transform.setdefault('num_classes', head.get('num_classes'))
            transform.setdefault('ignore_index', head.get('ignore_index', 255))


def use_faster_transforms(cfg: Config) -> None:
    """Put faster transforms with the same result in the place of mmpretrain's, in all pipelines.

    See :class:`~mobileone_mm.data.cropping.RandomResizedCrop` and
    :class:`~mobileone_mm.data.auto_augment.RandAugment`. mmpretrain's AutoAugment stays: the one here
    is another one, in which ``hparams`` are in force.

    Args:
        cfg: The config; changed in place.
    """
    own = cfg.get('default_scope') == 'mmpretrain'
    for name in _FASTER:
        names = (name, f'mmpretrain.{name}') if own else (f'mmpretrain.{name}',)
        for key in (*LOADERS, 'custom_hooks', 'tta_pipeline'):
            for transform in _transforms(cfg.get(key), names):
                transform['type'] = f'mobileone_mm.{name}'


def _replace(transform: Any, name: str, on_error: str, stop: bool) -> None:
    transform['type'] = f'mobileone_mm.{name}'
    transform['on_error'] = 'raise' if stop else transform.get('on_error', on_error)


def _transforms(node: Any, names: Sequence[str]) -> Iterator[Any]:
    if isinstance(node, Mapping):
        kind = node.get('type')
        name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
        if name in names:
            yield node
        for value in node.values():
            yield from _transforms(value, names)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _transforms(value, names)


def set_amp(cfg: Config) -> None:
    """Train in mixed precision.

    Raises:
        InputError: There is no GPU, or nothing to train.
    """
    if get_device() == 'cpu':
        raise InputError('--amp: mixed precision needs a GPU, and this run has none; leave it out')
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        raise InputError("--amp: the config has no 'optim_wrapper'")
    wrapper['type'] = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def set_tensorboard(cfg: Config) -> None:
    """Write curves, schedules and drawn predictions for TensorBoard, through the visualizer.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if importlib.util.find_spec('tensorboard') is None:
        raise InputError('--tensorboard: it is not installed; run `pip install tensorboard`')
    visualizer = cfg.get('visualizer') or ConfigDict(type='Visualizer', name='visualizer')
    backends = list(visualizer.get('vis_backends') or [])
    if not any('TensorboardVisBackend' in str(backend.get('type')) for backend in backends):
        backends.append(dict(type='TensorboardVisBackend'))
    visualizer['vis_backends'] = backends
    cfg.visualizer = visualizer
    hooks = list(cfg.get('custom_hooks') or [])
    for name in ('ScheduleLogHook', 'PredictionSamplesHook'):
        if not any(name in str(hook.get('type')) for hook in hooks):
            hooks.append(dict(type=f'mobileone_mm.{name}'))
    cfg.custom_hooks = hooks


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch size.

    Raises:
        InputError: The config does not say for which batch size its learning rate is.
    """
    scale = cfg.get('auto_scale_lr')
    if not isinstance(scale, dict) or not scale.get('base_batch_size'):
        raise InputError(
            "--auto-scale-lr: the config has no 'auto_scale_lr' with 'base_batch_size'; set it to "
            'the batch size that the learning rate is for'
        )
    scale['enable'] = True


def set_resume(cfg: Config, resume: str | None) -> str | None:
    """Continue a run: from a file, or from the latest checkpoint of the work dir.

    mmengine finds the latest by one small file that holds an absolute path; a moved folder, or a
    kill at the wrong moment, and it starts anew. Here the checkpoint of the highest number counts
    then. A run without a fixed seed continues with the seed that it drew.

    Args:
        cfg: The config; changed in place.
        resume: A checkpoint, or ``auto``; None starts anew.

    Returns:
        The checkpoint, None if there is none.

    Raises:
        InputError: The file cannot be read, or is no checkpoint of the Runner.
    """
    asked = '--resume'
    if resume is None:
        if not cfg.get('resume'):
            return None
        resume = cfg.get('load_from') or 'auto'
        asked = 'resume=True in the config (set resume=False to start anew)'
    found = latest_checkpoint(cfg.work_dir) if resume == 'auto' else str(resume)
    cfg.load_from, cfg.resume = found, found is not None
    if found is None:
        return None
    meta = read_checkpoint(found).get('meta')
    if not isinstance(meta, Mapping) or 'iter' not in meta or 'epoch' not in meta:
        raise InputError(
            f"{asked}: '{found}' has weights but no state of a run; start from it with "
            '--cfg-options load_from=...'
        )
    for key in ('epoch', 'iter', 'seed'):
        value = meta.get(key)
        if not (type(value) is int and value >= 0) and not (key == 'seed' and value is None):
            raise InputError(
                f"--resume: '{found}' is damaged: its {key} is no number from 0; take an earlier one"
            )
    randomness = cfg.setdefault('randomness', ConfigDict())
    if randomness.get('seed') is None and meta.get('seed') is not None:
        randomness['seed'] = int(meta['seed'])
    return found
