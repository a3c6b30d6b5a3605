"""Training and testing from a config: classifiers, detectors and segmentors alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS

from ..config import settings
from ..config.explain import config_faults
from ..config.keys import check_hooks, check_optimizer
from ..config.read import load_config
from ..config.values import check_topk
from ..data.checks.loaders import check_data
from ..errors import InputError
from ..inference.results import add_output, check_output, write_metrics
from ..models.channels import check_channels
from ..training.atomic_files import use_atomic_files
from ..training.folders import check_writable, nothing_left_behind, set_work_dir
from ..training.launch import (
    check_launcher,
    is_first_process,
    leave_group,
    select_device,
    wait_for_others,
)
from ..training.run_model import unwrapped
from ..training.runner import Runner
from ..weights.mmengine_loader import use_safe_loader
from ..weights.published import PREFIX, local_file
from ..weights.unwrap import read_weights

_TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper')
_TESTING = ('test_dataloader', 'test_cfg', 'test_evaluator')


def train(
    config: str | Path,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    no_validate: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
    stop_at_broken_images: bool = False,
    tensorboard: bool = False,
) -> Runner:
    """Train a model of any of the three hosts.

    Logs, config and checkpoints go to ``work_dirs/<config>`` or ``work_dir``, as with the hosts.

    Args:
        config: Path of the config.
        work_dir: Folder of the run.
        resume: Checkpoint to continue from; ``auto`` for the latest of the work dir. On the CPU the
            continued run has the weights of an unbroken one, bit by bit.
        amp: Mixed precision; needs a GPU.
        auto_scale_lr: Scale the learning rate to the batch size.
        no_validate: Do not evaluate during training.
        cfg_options: Overrides by dotted key.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.
        stop_at_broken_images: End the run at a file that cannot be read, instead of going on
            without it.
        tensorboard: Write curves, schedules and drawn predictions for TensorBoard, into
            ``vis_data`` of the run's log folder.

    Returns:
        The Runner after training.

    Raises:
        InputError: Anything that the user gave does not fit; nothing is trained then.
    """
    cfg = prepare_training(
        config,
        work_dir,
        amp,
        auto_scale_lr,
        no_validate,
        cfg_options,
        launcher,
        device,
        tensorboard,
    )
    resumed = settings.set_resume(cfg, resume)
    if cfg.get('load_from'):
        _check_readable(cfg.load_from)
    amend_pipelines(cfg, stop_at_broken_images)
    with running(cfg, launcher) as runner:
        check_channels(cfg.model, unwrapped(runner.model))
        if cfg.model.get('outputs'):
            runner.register_hook(dict(type='mobileone_mm.TeacherOutputsCheckHook'))
        if cfg.get('load_from'):
            same = resumed is not None
            runner.register_hook(
                dict(type='mobileone_mm.CheckpointCheckHook', whole=same, resume=same)
            )
        if resume and resumed is None:
            runner.logger.info(f'No checkpoint in {runner.work_dir}: the run starts anew.')
        runner.train()
    return runner


def prepare_training(
    config: str | Path,
    work_dir: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    no_validate: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
    tensorboard: bool = False,
) -> Config:
    """Read the config of a training, with its flags merged in, and check it and its data.

    The arguments are those of :func:`train`.

    Raises:
        InputError: Anything that the user gave does not fit.
    """
    check_launcher(launcher)
    select_device(device)
    cfg = load_config(config, cfg_options, needs=_TRAINING)
    if no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        settings.set_amp(cfg)
    if auto_scale_lr:
        settings.set_auto_scale_lr(cfg)
    if tensorboard:
        settings.set_tensorboard(cfg)
    _check(cfg, ('train_dataloader', 'val_dataloader'))
    if is_first_process():
        _check_initial_weights(cfg)
    set_work_dir(cfg, work_dir, config)
    return cfg


def evaluate(
    config: str | Path,
    checkpoint: str | Path,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    score_thr: float = 0.3,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of its config.

    Args:
        config: Path of the config.
        checkpoint: Path of the weights; they must be those of the config's model.
        work_dir: Folder of logs and metrics.
        out: File for predictions (``.pkl``; ``.csv`` for a classifier) or metrics (``.json``).
        show_dir: Folder for drawn predictions.
        score_thr: Lowest score of a box that is drawn.
        tta: Test-time augmentation, as ``tta_model`` and ``tta_pipeline`` of the config say.
        cfg_options: Overrides by dotted key.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.

    Returns:
        The metrics by name.

    Raises:
        InputError: Anything that the user gave does not fit; nothing is evaluated then.
    """
    check_launcher(launcher)
    select_device(device)
    cfg = load_config(config, cfg_options, needs=_TESTING)
    if not 0 <= score_thr <= 1:
        raise InputError(f'--score-thr: got {score_thr}; 0 to 1 is allowed')
    if out:
        check_output(out, [config, checkpoint])
    if tta:
        set_tta(cfg)
    _check(cfg, ('test_dataloader',))
    _check_readable(checkpoint)
    set_work_dir(cfg, work_dir, config)
    cfg.load_from, cfg.resume = str(checkpoint), False
    settings.survive_broken_files(cfg)
    if show_dir:
        check_show_dir(show_dir, launcher)
    with running(cfg, launcher) as runner:
        runner.register_hook(dict(type='mobileone_mm.CheckpointCheckHook'))
        if show_dir:
            from ..inference.draw import DrawHook

            runner.register_hook(DrawHook(show_dir, score_thr))
        add_output(runner, out)
        metrics = runner.test()
        write_metrics(runner, metrics, out)
    return metrics


def set_tta(cfg: Config) -> None:
    """Wrap the model and change the pipeline for test-time augmentation.

    Raises:
        InputError: The config does not say how.
    """
    for key in ('tta_model', 'tta_pipeline'):
        if not cfg.get(key):
            raise InputError(f"--tta: the config has no '{key}'")
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def check_show_dir(show_dir: str, launcher: str) -> None:
    """Check that a test can draw into a folder.

    Raises:
        InputError: It cannot be written, or there are several processes: mmengine's visualizer
            draws in the first one alone.
    """
    if launcher != 'none':
        raise InputError('--show-dir: only one process can draw; leave --launcher out')
    check_writable(show_dir, '--show-dir')


def _check(cfg: Config, loaders: Sequence[str]) -> None:
    settings.use_scope(cfg)
    check_topk(cfg, loaders[-1].replace('dataloader', 'evaluator'))
    check_hooks(cfg)
    check_optimizer(cfg)
    if is_first_process():
        check_data(cfg, loaders)
    settings.fit_loaders(cfg)


def amend_pipelines(cfg: Config, stop_at_broken_images: bool = False) -> None:
    """Change the pipelines of a training: loaders that survive broken files, the faster crop, views.

    Stored outputs of teachers are read in the place of running them, if the config says so.
    """
    settings.survive_broken_files(cfg, stop_at_broken_images)
    if cfg.model.get('outputs'):  # of a distilling classifier
        from ..distill.views import use_stored_outputs

        use_stored_outputs(cfg)
    settings.use_faster_transforms(cfg)  # last: stored views name the transforms of the config


def _build(cfg: Config, launcher: str) -> Runner:
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', '0')
    use_safe_loader()
    use_atomic_files()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextmanager
def running(cfg: Config, launcher: str) -> Iterator[Runner]:
    """Build the Runner of a config; together with the other processes, if there are any."""
    try:
        with nothing_left_behind(cfg.work_dir) as first, config_faults(cfg):
            runner = _build(cfg, launcher)
            runner.register_hook(first)
            try:
                yield runner
            finally:
                runner.visualizer.close()  # what TensorBoard and the like have not written yet
            _count_broken_files(runner)
            wait_for_others()
    finally:
        leave_group()


def _count_broken_files(runner: Runner) -> None:
    from ..data.loading import reported_files

    count = reported_files(reset=True)
    if count:
        runner.logger.warning(f'{count} files could not be read; the log names each of them.')


def _check_initial_weights(cfg: Config) -> None:
    """Fetch named weights of the backbone early: without a network there is another way to start."""
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    given = backbone.get('init_cfg') or {}
    checkpoint = given.get('checkpoint') if isinstance(given, Mapping) else None
    if not str(checkpoint).startswith(PREFIX):
        return
    try:
        local_file(str(checkpoint))
    except InputError as error:
        raise InputError(
            f'{error}; or train from scratch with --cfg-options model.backbone.init_cfg._delete_=True '
            'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit'
        ) from error


def _check_readable(checkpoint: str | Path) -> None:
    # mmengine fetches the others when it loads them.
    if '://' not in str(checkpoint) or str(checkpoint).startswith(PREFIX):
        read_weights(checkpoint)
