"""Train a classifier, detector or segmentor from a config."""

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
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
    **flags: Any,
) -> Runner:
    """Train a model of any of the three hosts.

    Logs, config and checkpoints go to ``work_dirs/<config>`` or ``work_dir``, as with the hosts.

    Args:
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.
        **flags: ``work_dir``; ``resume``, a checkpoint to continue from, or ``auto`` for the latest of
            the work dir (on the CPU the continued run has the weights of an uninterrupted one, bit by
            bit); ``amp``, mixed precision on a GPU; ``auto_scale_lr``, with the batch size;
            ``no_validate``; ``stop_at_broken_images``, instead of continuing without them;
            ``tensorboard``, curves and drawn predictions in ``vis_data`` of the log folder.

    Returns:
        The Runner after training.

    Raises:
        InputError: Anything that the user gave does not fit; nothing is trained then.
    """
    prepared = prepare_training(config, cfg_options, launcher, device, **flags)
    with running(prepared, launcher) as runner:
        check_channels(prepared.cfg.model, unwrapped(runner.model))
        if flags.get('resume') and not prepared.cfg.resume:
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
    """Prepare the config of a training; arguments and errors are those of :func:`train`."""
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
