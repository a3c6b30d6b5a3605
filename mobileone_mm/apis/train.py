"""Train a classifier, detector or segmentor from a config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config.tree import mapping
from ..errors import InputError
from ..models.channels import check_channels
from ..runs.prepare import TRAIN, Prepared, prepare
from ..runs.running import running
from ..training.launch import check_launcher, is_first_process, select_device
from ..training.run_model import unwrapped
from ..training.runner import Runner
from ..weights.published import PREFIX, local_file


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
        resume: Checkpoint to continue from; ``auto`` for the latest of the work dir. On the CPU the
            continued run has the weights of an uninterrupted one, bit by bit.
        amp: Mixed precision; needs a GPU.
        auto_scale_lr: Scale the learning rate with the batch size.
        no_validate: Do not evaluate during training.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.
        stop_at_broken_images: End the run at a file that cannot be read, instead of continuing
            without it.
        tensorboard: Write curves, schedules and drawn predictions for TensorBoard, into
            ``vis_data`` of the run's log folder.

    Returns:
        The Runner after training.

    Raises:
        InputError: Anything that the user gave does not fit; nothing is trained then.
    """
    prepared = prepare_training(
        config,
        cfg_options,
        launcher,
        device,
        work_dir=work_dir,
        resume=resume,
        amp=amp,
        auto_scale_lr=auto_scale_lr,
        no_validate=no_validate,
        stop_at_broken_images=stop_at_broken_images,
        tensorboard=tensorboard,
    )
    with running(prepared, launcher) as runner:
        check_channels(prepared.cfg.model, unwrapped(runner.model))
        if resume and not prepared.cfg.resume:
            runner.logger.info(f'No checkpoint in {runner.work_dir}: starting from the beginning.')
        runner.train()
    return runner


def prepare_training(
    config: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
    **flags: Any,
) -> Prepared:
    """Prepare the config of a training, and check processes, device and initial weights.

    The arguments are those of :func:`train`.

    Raises:
        InputError: Anything that the user gave does not fit.
    """
    check_launcher(launcher)
    select_device(device)
    prepared = prepare(config, cfg_options, TRAIN, **flags)
    if is_first_process():
        _fetch_initial_weights(prepared.cfg)
    return prepared


def _fetch_initial_weights(cfg: Config) -> None:
    """Download named weights of the backbone early, and say how to start without a network."""
    init_cfg = mapping(mapping(cfg.model.get('backbone')).get('init_cfg'))
    checkpoint = str(init_cfg.get('checkpoint'))
    if not checkpoint.startswith(PREFIX):
        return
    try:
        local_file(checkpoint)
    except InputError as error:
        raise InputError(
            f'{error}; or train from scratch with --cfg-options model.backbone.init_cfg._delete_=True '
            'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit'
        ) from error
