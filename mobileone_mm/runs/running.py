"""The Runner of a prepared config, alone or with other processes."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from mmengine.dist import barrier, is_distributed
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS

from ..config.explain import config_faults
from ..data.coco import forget_coco_files
from ..data.loading import SIZE, UNREADABLE, forget_files, reported_files
from ..data.sizes import check_sizes_at_end
from ..files import use_atomic_files
from ..models.seg_loss import use_class_weights
from ..training.folders import nothing_left_behind
from ..training.runner import Runner
from ..weights.mmengine_loader import use_safe_loader
from .prepare import Prepared

_FILE_FAULTS = {UNREADABLE: 'could not be read', SIZE: 'have another size than their annotation'}


@contextmanager
def running(prepared: Prepared, launcher: str = 'none') -> Iterator[Runner]:
    """Build the Runner of a config with its errors in one line each, and clean up after it."""
    cfg = prepared.cfg
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', '0')
    use_safe_loader()
    use_atomic_files()
    if cfg.get('default_scope') == 'mmseg':
        use_class_weights()
    forget_files()
    try:
        with (
            nothing_left_behind(cfg.work_dir) as progress,
            config_faults(cfg, built=lambda: progress.started),
        ):
            runner = _build(prepared)
            prepared.log(runner.logger)
            runner.register_hook(progress)
            runner.register_hook(_FilesAreRead())
            try:
                yield runner
            finally:
                runner.visualizer.close()  # TensorBoard and the like write what is left
            for kind, fault in _FILE_FAULTS.items():
                if count := reported_files(reset=True, kind=kind):
                    runner.logger.warning(f'{count} files {fault}; the log names each.')
            check_sizes_at_end()
            barrier()  # a process that ends early closes the connections of those that still write
    finally:
        if is_distributed():  # torch warns of a process group that stays open
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()


class _FilesAreRead(Hook):
    """Frees the annotation files that the checks have read, when the hosts have taken them."""

    def before_train(self, runner: Runner) -> None:  # noqa: ARG002
        forget_coco_files()

    before_test = before_train


def _build(prepared: Prepared) -> Runner:
    """Build the Runner; the config that it writes starts a new run, from the weights that it names."""
    cfg, written = copy.deepcopy(prepared.cfg), prepared.written
    source, whole = cfg.get('load_from'), bool(cfg.get('resume'))
    cfg.load_from = None if written.get('resume') else written.get('load_from')
    cfg.resume = False
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner._load_from, runner._resume = source, whole
    return runner
