"""The changes that the tools make in a config, each in place.

:mod:`mobileone_mm.runs.prepare` has their order and their names.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from ..config.tree import datasets, mapping, type_name, walk
from ..data.datasets import datasets_of
from ..data.image_files import IMAGE_SUFFIXES
from ..distill.views import use_stored_outputs
from ..errors import InputError
from ..registry import FASTER
from ..training.folders import latest_checkpoint
from ..weights.reading import read_checkpoint

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_IMAGE_LOADERS = (
    'LoadImage', 'LoadImageFromFile', 'mmcv.LoadImageFromFile', 'mobileone_mm.LoadImage',
)  # fmt: skip
_MASK_LOADERS = ('mmseg.LoadAnnotations', 'mobileone_mm.LoadSegAnnotations')


@dataclass(frozen=True)
class Flags:
    """Arguments of the tools besides ``--cfg-options``; see the change of each name."""

    config: str | Path = ''  # the default work dir is named after it
    work_dir: str | None = None
    checkpoint: str | Path | None = None  # the weights to test
    resume: str | None = None  # a checkpoint, or 'auto' for the latest of the work dir
    no_validate: bool = False
    amp: bool = False
    auto_scale_lr: bool = False
    tensorboard: bool = False
    tta: bool = False
    stop_at_broken_images: bool = False


def no_validate(cfg: Config, flags: Flags) -> None:
    """Train without evaluation, which selects no best checkpoint."""
    if not flags.no_validate:
        return
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    for hook in (*mapping(cfg.get('default_hooks')).values(), *(cfg.get('custom_hooks') or ())):
        if mapping(hook).get('save_best') is not None:
            hook['save_best'] = None


def amp(cfg: Config, flags: Flags) -> None:
    """Train in mixed precision."""
    if not flags.amp:
        return
    if get_device() == 'cpu':
        raise InputError('--amp: mixed precision needs a GPU, and this run uses none; leave it out')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def auto_scale_lr(cfg: Config, flags: Flags) -> None:
    """Scale the learning rate with the batch size."""
    if not flags.auto_scale_lr:
        return
    scale = cfg.get('auto_scale_lr')
    if not isinstance(scale, dict) or not scale.get('base_batch_size'):
        raise InputError(
            "--auto-scale-lr: the config has no 'auto_scale_lr' with 'base_batch_size'; set it to "
            'the batch size that the learning rate is for'
        )
    scale['enable'] = True


def tensorboard(cfg: Config, flags: Flags) -> None:
    """Write curves, schedules and drawn predictions for TensorBoard, through the visualizer."""
    if not flags.tensorboard:
        return
    visualizer = cfg.get('visualizer') or ConfigDict(type='Visualizer', name='visualizer')
    _add_types(visualizer, 'vis_backends', 'TensorboardVisBackend')
    cfg.visualizer = visualizer
    hooks = ('ScheduleLogHook', 'PredictionSamplesHook')
    _add_types(cfg, 'custom_hooks', *(f'mobileone_mm.{name}' for name in hooks))


def tta(cfg: Config, flags: Flags) -> None:
    """Wrap the model and replace the pipeline for test-time augmentation."""
    if not flags.tta:
        return
    for key in ('tta_model', 'tta_pipeline'):
        if not cfg.get(key):
            raise InputError(f"--tta: the config has no '{key}'")
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for _, dataset in datasets(cfg, 'test_dataloader'):
        dataset['pipeline'] = cfg.tta_pipeline


def workers(cfg: Config, flags: Flags) -> None:  # noqa: ARG001
    """Set what mmpretrain's own tool sets in its loaders, and what depends on the machine.

    torch refuses persistent workers without workers, and warns of pinned memory without a GPU.
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


def work_dir(cfg: Config, flags: Flags) -> None:
    """Set the work dir: the flag, else the config's, else ``work_dirs/<name of the config>``."""
    found = flags.work_dir or cfg.get('work_dir') or Path('work_dirs', Path(flags.config).stem)
    cfg.work_dir = str(Path(found).expanduser())


def load_from(cfg: Config, flags: Flags) -> None:
    """Test the given weights."""
    cfg.load_from, cfg.resume = str(flags.checkpoint), False


def resume(cfg: Config, flags: Flags) -> None:
    """Continue a run: from a file, or from the latest checkpoint of the work dir.

    A run without a fixed seed continues with its seed.
    """
    asked, given = '--resume', flags.resume
    if given is None:
        if not cfg.get('resume'):
            return
        given = cfg.get('load_from') or 'auto'
        asked = 'resume=True in the config (set resume=False to start from the beginning)'
    found = latest_checkpoint(cfg.work_dir) if given == 'auto' else str(given)
    cfg.load_from, cfg.resume = found, found is not None
    if found is None:
        return
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
                f"{asked}: '{found}' is damaged: its {key} is {value!r}, not an integer of at least 0; "
                'give an earlier checkpoint'
            )
    randomness = cfg.setdefault('randomness', ConfigDict())
    if randomness.get('seed') is None and meta.get('seed') is not None:
        randomness['seed'] = meta['seed']


def broken_files(cfg: Config, flags: Flags) -> None:
    """Replace the hosts' loading transforms by ones that continue after a broken file.

    An ``on_error`` of the config holds, except with ``stop_at_broken_images``.
    """
    head = mapping(cfg.get('model')).get('decode_head')
    head = mapping(head[-1] if isinstance(head, (list, tuple)) and head else head)
    # A bare LoadAnnotations is mmseg's only in mmseg's scope: mmdet has one of that name, too.
    masks = (*_MASK_LOADERS, *(['LoadAnnotations'] if cfg.get('default_scope') == 'mmseg' else ()))
    for training, step in _steps(cfg, (*_IMAGE_LOADERS, *masks)):
        is_mask = type_name(step) in masks
        on_error = 'skip' if training else 'ignore' if is_mask else 'blank'
        on_error = 'raise' if flags.stop_at_broken_images else step.get('on_error', on_error)
        name = 'LoadSegAnnotations' if is_mask else 'LoadImage'
        step.update(type=f'mobileone_mm.{name}', on_error=on_error)
        if is_mask:
            # A head of one channel separates class 1 from the rest, also with num_classes=1.
            sizes = head.get('num_classes'), head.get('out_channels')
            step.setdefault('num_classes', 2 if 1 in sizes else sizes[0])
            step.setdefault('ignore_index', head.get('ignore_index', 255))


def image_suffixes(cfg: Config, flags: Flags) -> None:  # noqa: ARG001
    """Let mmpretrain's datasets of folders list all images that the loaders read.

    Its own list lacks ``.webp``, ``.tiff`` and others. ``extensions`` of the config hold.
    """
    for loader in LOADERS:
        for dataset in datasets_of(cfg, loader):
            if dataset.lists_folders and dataset.settings.get('extensions') is None:
                dataset.settings['extensions'] = list(IMAGE_SUFFIXES)


def stored_outputs(cfg: Config, flags: Flags) -> None:  # noqa: ARG001
    """Read stored outputs of the teachers, which name the transforms as the user wrote them."""
    if cfg.model.get('outputs'):  # of a distilling classifier
        use_stored_outputs(cfg)


def faster_transforms(cfg: Config, flags: Flags) -> None:  # noqa: ARG001
    """Replace transforms of mmpretrain by those of :mod:`mobileone_mm.data.augmentations`."""
    scopes = ('', 'mmpretrain.') if cfg.get('default_scope') == 'mmpretrain' else ('mmpretrain.',)
    for _, step in _steps(cfg, [f'{scope}{name}' for scope in scopes for name in FASTER]):
        step['type'] = f'mobileone_mm.{type_name(step).rpartition(".")[2]}'


def _steps(cfg: Config, names: Collection[str]) -> Iterator[tuple[bool, Any]]:
    """Yield the transforms of these types, and whether they are for training."""
    others = ('tta_pipeline', *(() if cfg.get('test_dataloader') else ('test_pipeline',)))
    for key in (*LOADERS, 'custom_hooks', *others):
        for _, node in walk(cfg.get(key)):
            if type_name(node) in names:
                yield key in ('train_dataloader', 'custom_hooks'), node


def checks(cfg: Config, flags: Flags) -> None:
    """Add the hooks that check the checkpoint and the stored outputs of a run."""
    own = ('mobileone_mm.CheckpointCheckHook', 'mobileone_mm.TeacherOutputsCheckHook')
    # A config that a run has written has the hooks of that run.
    hooks = [hook for hook in cfg.get('custom_hooks') or () if type_name(hook) not in own]
    if cfg.get('load_from'):
        whole = bool(cfg.get('resume') or flags.checkpoint)
        hooks.append(dict(type=own[0], whole=whole))
    if flags.checkpoint is None and cfg.model.get('outputs'):
        hooks.append(dict(type=own[1]))
    if hooks or cfg.get('custom_hooks'):
        cfg.custom_hooks = hooks


def _add_types(owner: Any, key: str, *types: str) -> None:
    """Add a dict to a list for each type that it does not have yet."""
    nodes = list(owner.get(key) or [])
    names = [type_name(node).rpartition('.')[2] for node in nodes]
    owner[key] = nodes + [dict(type=t) for t in types if t.rpartition('.')[2] not in names]
