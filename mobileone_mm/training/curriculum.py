"""A curriculum: resolution and strength of the augmentation rise from phase to phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..errors import InputError
from ..registry import HOOKS
from .averages import unwrapped
from .seeding import seeded


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Trains in phases, each with its resolution and strength of augmentation.

    mmpretrain's ``SwitchRecipeHook`` takes whole pipelines at fixed epochs. A key that it does not
    know is dropped without a word (which is why the phases of mmpretrain's own MobileOne configs never
    begin), a phase behind the end of the run is no error, and a shorter run needs other numbers. It
    has no notion of a magnitude: each phase would have to spell out AutoAugment's 25 policies. So this
    hook does not use it. Here phases are numbers:

    - ``resolution`` sets ``scale`` of the pipeline's ``RandomResizedCrop``, and of a ``Resize`` to a
      square without ``keep_ratio``; nothing else, and nothing of the validation.
    - ``strength`` multiplies the magnitudes of mmpretrain's ``AutoAugment`` and ``RandAugment``;
      see :func:`~mobileone_mm.training.phases.weakened`.

    A switch is one number in shared memory, written while no batch is loaded: worker processes,
    persistent or not, see it from the first image of the epoch. It follows from the epoch alone, so
    that a resumed run and all processes are in the right phase.

    Args:
        phases: Dicts of ``begin`` (the first epoch of the phase, counted from 0), ``resolution``
            (pixels) and ``strength`` (0 to 1). Either of the last two can be left out of all phases.
        total: Length of the run, in epochs, that ``begin`` is meant for. In a run of another length
            (``train_cfg.max_epochs``) phases become longer or shorter in proportion, rounded to whole
            epochs, at least one epoch each. None takes them as they are.

    Raises:
        ValueError: The phases are malformed, unsorted, one is the same as the one before, or begins
            after ``total``.
        InputError: At the start of a run: a phase would not take effect, because it begins after the
            end, the pipeline has nothing that it changes, or something behind that undoes it.
    """

    priority = 'VERY_HIGH'

    def __init__(self, phases: Sequence[Mapping[str, Any]], total: int | None = None) -> None:
        from .phases import check_total, read_phases

        self.phases = read_phases(phases)
        check_total(self.phases, total)
        self.total = total
        self._begins: list[int] = []
        self._index = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._logged: int | None = None

    def begins(self, max_epochs: int) -> list[int]:
        """First epoch of each phase, counted from 0, in a run of so many epochs.

        Raises:
            InputError: A phase would begin after the end.
        """
        from .phases import first_epochs

        try:
            return first_epochs(self.phases, self.total, max_epochs)
        except ValueError as error:
            raise InputError(f'custom_hooks: CurriculumHook: {error}') from error

    def before_train(self, runner: Any) -> None:
        """Check the phases against the run and put them into the pipeline.

        Raises:
            InputError: See the class.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError(
                'custom_hooks: CurriculumHook: its phases are counted in epochs, and train_cfg.type is '
                f'{type(runner.train_loop).__name__}; EpochBasedTrainLoop is needed'
            )
        self._begins = self.begins(runner.max_epochs)
        self._install(runner)
        self._switch(runner)

    def before_train_epoch(self, runner: Any) -> None:
        self._switch(runner)

    def use_phase(self, number: int) -> None:
        """Put a phase in force, counted from 0, for all images that are loaded from now on."""
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
        from .phases import install

        for hook in filter(_replaces_pipelines, runner.hooks):
            raise InputError(
                f'custom_hooks: CurriculumHook and {type(hook).__name__} both change the training '
                'pipeline; leave one of them out'
            )
        dataset = runner.train_dataloader.dataset
        try:
            counts = install(dataset, self.phases, self._index)
        except ValueError as error:
            raise InputError(f'custom_hooks: CurriculumHook: strength: {error}') from error
        wanted = (
            ('resolution', 'RandomResizedCrop, or a Resize to a square without keep_ratio'),
            ('strength', "mmpretrain's AutoAugment or RandAugment"),
        )
        for (key, kinds), count in zip(wanted, counts, strict=True):
            if getattr(self.phases[0], key) is not None and count == 0:
                raise InputError(
                    f'custom_hooks: CurriculumHook: {key}: the training pipeline has nothing that it '
                    f'would change ({kinds}); leave it out of the phases'
                )
        if self.phases[0].resolution is not None:
            self._check_sizes(runner, dataset)

    def _check_sizes(self, runner: Any, dataset: Any) -> None:
        """Load a sample in every phase: a crop or a padding may follow and undo the resolution."""
        preprocessor = getattr(unwrapped(runner.model), 'data_preprocessor', None)
        fixed = getattr(preprocessor, 'size', None)
        if fixed is not None:
            raise InputError(
                f'custom_hooks: CurriculumHook: resolution: model.data_preprocessor.size pads to '
                f'{fixed}; leave it out of the config'
            )
        for number, phase in enumerate(self.phases):
            self.use_phase(number)
            with seeded(0):
                sample = dataset[0]
            inputs = sample.get('inputs') if isinstance(sample, Mapping) else None
            if not isinstance(inputs, torch.Tensor):
                continue
            size = tuple(inputs.shape[-2:])
            if size != (phase.resolution, phase.resolution):
                raise InputError(
                    f'custom_hooks: CurriculumHook: resolution: images of phases.{number} are '
                    f'{size[1]} x {size[0]}, not {phase.resolution} px; a later transform of the '
                    'training pipeline changes their size'
                )


def _replaces_pipelines(hook: Hook) -> bool:
    """Whether a hook of mmdet, or of mmpretrain, puts another pipeline into the dataset."""
    name = type(hook).__name__
    recipes = getattr(hook, 'schedule', {}) if name == 'SwitchRecipeHook' else {}
    replaced = any('train_pipeline' in recipe for recipe in recipes.values())
    return replaced or name == 'PipelineSwitchHook'
