"""The deploy pair beside the best checkpoint of a run."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook

from ..deploy.convert import prepare_conversion
from ..errors import InputError, ProofError, one_line
from ..models.argument_checks import check_number
from ..registry import HOOKS
from ..training.run_model import has_branches, unwrapped
from ..training.seeding import seeded


@HOOKS.register_module()
class BestDeployHook(Hook):
    """Write the deploy pair and its report beside each new best checkpoint.

    ``best_accuracy_top1_epoch_9.pth`` gets ``best_accuracy_top1_epoch_9_deploy.pth``, ``.py`` and
    ``.json``; see :func:`~mobileone_mm.convert_to_deploy`. The pair of the previous best is then
    removed. If a conversion fails, the log has an error and the older pair stays. A resumed run writes
    the pair that a killed run could not write, after its first validation.

    Args:
        tolerance: As in :func:`~mobileone_mm.convert_to_deploy`.

    Raises:
        InputError: No best checkpoint is saved on a local disk, or the model has no unit to fuse.
    """

    priority = 'LOWEST'  # after CheckpointHook, which saves the best at the end of a validation

    def __init__(self, tolerance: float | None = None) -> None:
        if tolerance is not None:
            check_number('tolerance', tolerance, 0, 1, ends=False)
        self.tolerance = tolerance
        self._active = False
        self._done: dict[str, str] = {}  # by key: the best checkpoint that was handled
        self._pairs: dict[str, Path] = {}  # by key: the pair on the disk

    def before_train(self, runner: Any) -> None:
        self._active = has_branches(unwrapped(runner.model), 'BestDeployHook')
        if not self._active:
            runner.logger.info('The model is in deploy form, and so are its best checkpoints.')
            return
        if runner._val_loop is None:  # as with --no-validate
            self._active = False
            runner.logger.info(
                'The run has no validation, so BestDeployHook writes no deploy pair.'
            )
            return
        savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if all(hook.save_best is None for hook in savers):
            raise InputError(
                'custom_hooks: BestDeployHook: no best checkpoint is saved; set '
                'default_hooks.checkpoint.save_best to the name of a metric'
            )
        if any('://' in str(hook.out_dir) for hook in savers):
            raise InputError(
                'custom_hooks: BestDeployHook writes to local disks only; remove the out_dir of '
                'default_hooks.checkpoint, or remove the hook'
            )
        for key, checkpoint in _best_checkpoints(runner).items():
            if (pair := _pair_of(checkpoint)).is_file():
                self._done[key], self._pairs[key] = checkpoint, pair

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:  # noqa: ARG002
        if not (self._active and is_main_process()):
            return
        for key, checkpoint in _best_checkpoints(runner).items():
            if self._done.get(key) != checkpoint:
                self._done[key] = checkpoint
                self._renew(runner, key, checkpoint)

    def _renew(self, runner: Any, key: str, checkpoint: str) -> None:
        pair = _pair_of(checkpoint)
        try:
            with seeded(0):  # the course of the run must not depend on the conversion
                prepare_conversion(
                    runner.cfg, checkpoint, pair, (), self.tolerance, 'cpu', backbone_only=False
                ).write()
        except Exception as error:  # a tool can write the pair later; the training must go on
            expected = isinstance(error, (InputError, ProofError, OSError))
            line = f'No deploy pair of {Path(checkpoint).name}: {one_line(error)}'
            runner.logger.error(line, exc_info=not expected)
            return
        runner.logger.info(f'The deploy pair of the best checkpoint is written to {pair}.')
        previous = self._pairs.get(key)
        self._pairs[key] = pair
        if previous is not None and previous not in self._pairs.values():
            for suffix in ('.pth', '.py', '.json'):
                with suppress(OSError):
                    previous.with_suffix(suffix).unlink()


def _pair_of(checkpoint: str) -> Path:
    path = Path(checkpoint)
    return path.with_name(f'{path.stem}_deploy.pth')


def _best_checkpoints(runner: Any) -> dict[str, str]:
    """Return the best checkpoints on the disk by CheckpointHook's keys, one for each metric."""
    return {
        key: path
        for key, path in runner.message_hub.runtime_info.items()
        if key.startswith('best_ckpt') and isinstance(path, str) and Path(path).is_file()
    }
