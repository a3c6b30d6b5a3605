"""A hook that raises resolution and augmentation strength from phase to phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..errors import InputError
from ..registry import HOOKS
from ..training.curriculum import check_total, first_epochs, install, read_phases
from ..training.run_model import unwrapped
from ..training.seeding import seeded

_NAME = 'custom_hooks: CurriculumHook'


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Train in phases, each with its own resolution and augmentation strength.

    mmpretrain's ``SwitchRecipeHook`` replaces whole pipelines at fixed epochs. It ignores unknown keys
    (so the phases of mmpretrain's own MobileOne configs never start), ignores a phase after the end
    of the run, and needs other numbers for a shorter run. It has no magnitudes: each phase would have
    to list AutoAugment's 25 policies. Here a phase is a few numbers:

    - ``resolution`` sets ``scale`` of the training pipeline's ``RandomResizedCrop``, and of a
      ``Resize`` to a square without ``keep_ratio``. Nothing else changes.
    - ``strength`` multiplies the magnitudes of mmpretrain's ``AutoAugment`` and ``RandAugment``;
      see :func:`~mobileone_mm.training.curriculum.weakened`.

    A switch writes one number in shared memory while no batch is loaded. All worker processes,
    persistent or not, read it from the first image of the epoch on. The number depends only on the
    epoch, so a resumed run and all ranks are in the right phase.

    Args:
        phases: Dicts of ``begin`` (first epoch of the phase, counted from 0), ``resolution`` (pixels)
            and ``strength`` (0 to 1). All phases may omit ``resolution``, or all ``strength``.
        total: Number of epochs that ``begin`` refers to. In a run of another length
            (``train_cfg.max_epochs``) all phases are scaled in proportion, rounded to whole epochs,
            with at least one epoch each. None uses ``begin`` unchanged.

    Raises:
        ValueError: The phases are malformed or not sorted, a phase equals the one before, or begins
            after ``total``.
        InputError: At the start of a run: a phase would have no effect, because it begins after the
            end, the pipeline has nothing that it changes, or a later transform undoes it.
    """

    priority = 'VERY_HIGH'

    def __init__(self, phases: Sequence[Mapping[str, Any]], total: int | None = None) -> None:
        self.phases = read_phases(phases)
        check_total(self.phases, total)
        self.total = total
        self._begins: list[int] = []
        self._index = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._logged: int | None = None

    def begins(self, max_epochs: int) -> list[int]:
        """Return the first epoch of each phase; an InputError names a phase after the end."""
        try:
            return first_epochs(self.phases, self.total, max_epochs)
        except ValueError as error:
            raise InputError(f'{_NAME}: {error}') from error

    def before_train(self, runner: Any) -> None:
        """Check the phases against the run and put them into the pipeline."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError(
                f'{_NAME}: its phases are counted in epochs, and train_cfg.type is '
                f'{type(runner.train_loop).__name__}; expected EpochBasedTrainLoop'
            )
        self._begins = self.begins(runner.max_epochs)
        self._install(runner)
        self._switch(runner)

    def before_train_epoch(self, runner: Any) -> None:
        self._switch(runner)

    def use_phase(self, number: int) -> None:
        """Use a phase, counted from 0, for all images that are loaded from now on."""
        self._index.fill_(number)

    def _switch(self, runner: Any) -> None:
        number = sum(begin <= runner.epoch for begin in self._begins) - 1
        self.use_phase(number)
        if number != self._logged:
            self._logged = number
            runner.logger.info(
                f'Curriculum: phase {number + 1} of {len(self.phases)} from epoch '
                f'{self._begins[number] + 1}: {self.phases[number]}'
            )

    def _install(self, runner: Any) -> None:
        for hook in filter(_replaces_pipelines, runner.hooks):
            raise InputError(
                f'{_NAME} and {type(hook).__name__} both change the training pipeline; remove one of '
                'them'
            )
        dataset = runner.train_dataloader.dataset
        try:
            counts = install(dataset, self.phases, self._index)
        except ValueError as error:
            raise InputError(f'{_NAME}: strength: {error}') from error
        wanted = (
            ('resolution', 'RandomResizedCrop, or a Resize to a square without keep_ratio'),
            ('strength', "mmpretrain's AutoAugment or RandAugment"),
        )
        for (key, kinds), count in zip(wanted, counts, strict=True):
            if getattr(self.phases[0], key) is not None and count == 0:
                raise InputError(
                    f'{_NAME}: {key}: the training pipeline has no transform that it would change '
                    f'({kinds}); remove it from the phases'
                )
        if self.phases[0].resolution is not None:
            self._check_sizes(runner, dataset)

    def _check_sizes(self, runner: Any, dataset: Any) -> None:
        """Load a sample in every phase: a later crop or padding could undo the resolution."""
        preprocessor = getattr(unwrapped(runner.model), 'data_preprocessor', None)
        fixed = getattr(preprocessor, 'size', None)
        if fixed is not None:
            raise InputError(
                f'{_NAME}: resolution: model.data_preprocessor.size pads to {fixed}; remove it from '
                'the config'
            )
        for number, phase in enumerate(self.phases):
            self.use_phase(number)
            with seeded(0):
                sample = dataset[0]
            inputs = sample.get('inputs') if isinstance(sample, Mapping) else None
            if not isinstance(inputs, torch.Tensor):
                return  # the dataset packs its samples in another way, which cannot be checked
            size = tuple(inputs.shape[-2:])
            if size != (phase.resolution, phase.resolution):
                raise InputError(
                    f'{_NAME}: resolution: images of phases.{number} are {size[1]} x {size[0]}, not '
                    f'{phase.resolution} px; a later transform of the training pipeline changes '
                    'their size'
                )


def _replaces_pipelines(hook: Hook) -> bool:
    """Return whether a hook of mmdet or mmpretrain replaces the pipeline of the dataset."""
    name = type(hook).__name__
    recipes = getattr(hook, 'schedule', {}) if name == 'SwitchRecipeHook' else {}
    replaced = any('train_pipeline' in recipe for recipe in recipes.values())
    return replaced or name == 'PipelineSwitchHook'
