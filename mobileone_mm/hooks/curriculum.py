"""A hook that raises resolution and augmentation strength from phase to phase."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor

from ..errors import InputError
from ..models.argument_checks import check_integer, check_number
from ..registry import HOOKS
from ..training.run_model import datasets_inside, unwrapped
from ..training.seeding import seeded

_NAME = 'custom_hooks: CurriculumHook'
#: attributes that are the magnitude of an augmentation, with the value that does not change an image;
#: SolarizeAdd has two of them, of which the first is its magnitude
_NEUTRAL = {'magnitude': 0, 'angle': 0, 'bits': 8, 'thr': 256}
_WITHOUT_MAGNITUDE = ('AutoContrast', 'Equalize', 'Invert')


@HOOKS.register_module()
class CurriculumHook(Hook):
    """Train in phases, each with its own resolution and augmentation strength.

    mmpretrain's ``SwitchRecipeHook`` replaces whole pipelines at fixed epochs and knows no magnitudes.
    Here a phase is a few numbers:

    - ``resolution`` sets ``scale`` of the training pipeline's ``RandomResizedCrop``, and of a
      ``Resize`` to a square without ``keep_ratio``. Nothing else changes.
    - ``strength`` multiplies the magnitudes of mmpretrain's ``AutoAugment`` and ``RandAugment``;
      see :func:`weakened`.

    A switch writes one number in shared memory, which all worker processes read at each image. It
    depends only on the epoch, so a resumed run and all ranks are in the right phase.

    Args:
        phases: Dicts of ``begin`` (first epoch of the phase, counted from 0), ``resolution`` (pixels)
            and ``strength`` (0 to 1). All phases may omit ``resolution``, or all ``strength``.
        total: Number of epochs that ``begin`` refers to. In a run of another length all phases are
            scaled in proportion, to whole epochs, at least one each. None uses ``begin`` unchanged.

    Raises:
        InputError: At the start of a run: a phase would have no effect, because it begins after the
            end, the pipeline has nothing that it changes, or a later transform undoes it.
    """

    priority = 'VERY_HIGH'

    def __init__(self, phases: Sequence[Mapping[str, Any]], total: int | None = None) -> None:
        self.phases = read_phases(phases)
        self.total = None if total is None else check_integer('total', total, 1)
        self._begins: list[int] = []
        self._index = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._logged: int | None = None

    def begins(self, max_epochs: int) -> list[int]:
        """Return the first epoch of each phase; an InputError names a phase after the end."""
        begins: list[int] = []
        for index, phase in enumerate(self.phases):
            begin = phase.begin
            if self.total is not None:
                begin = math.floor(begin * max_epochs / self.total + 0.5)
                begin = max(begin, begins[-1] + 1) if begins else begin
            if begin >= max_epochs:
                raise InputError(
                    f'{_NAME}: phases.{index}: would begin at epoch {begin + 1} of a run of '
                    f'{max_epochs}; remove it, train longer or correct total'
                )
            begins.append(begin)
        return begins

    def before_train(self, runner: Any) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError(
                f'{_NAME}: its phases are counted in epochs, and train_cfg.type is '
                f'{type(runner.train_loop).__name__}; expected EpochBasedTrainLoop'
            )
        for hook in filter(_replaces_pipelines, runner.hooks):
            raise InputError(
                f'{_NAME} and {type(hook).__name__} both change the training pipeline; remove one'
            )
        self._begins = self.begins(runner.max_epochs)
        try:
            counts = install(runner.train_dataloader.dataset, self.phases, self._index)
        except ValueError as error:
            raise InputError(f'{_NAME}: strength: {error}') from error
        for key, kinds in (
            ('resolution', 'RandomResizedCrop, or a Resize to a square without keep_ratio'),
            ('strength', "mmpretrain's AutoAugment or RandAugment"),
        ):
            if getattr(self.phases[0], key) is not None and not counts[key]:
                raise InputError(
                    f'{_NAME}: {key}: the training pipeline has no transform that it would change '
                    f'({kinds}); remove it from the phases'
                )
        if self.phases[0].resolution is not None:
            self._check_sizes(runner.model, runner.train_dataloader.dataset)
        self.before_train_epoch(runner)

    def before_train_epoch(self, runner: Any) -> None:
        number = sum(begin <= runner.epoch for begin in self._begins) - 1
        self.use_phase(number)
        if number != self._logged:
            self._logged = number
            runner.logger.info(
                f'Curriculum: phase {number + 1} of {len(self.phases)} from epoch '
                f'{self._begins[number] + 1}: {self.phases[number]}'
            )

    def use_phase(self, number: int) -> None:
        """Use a phase, counted from 0, for all images that are loaded from now on."""
        self._index.fill_(number)

    def _check_sizes(self, model: Any, dataset: Any) -> None:
        """Load a sample in every phase: a later crop or padding could undo the resolution."""
        preprocessor = getattr(unwrapped(model), 'data_preprocessor', None)
        if (fixed := getattr(preprocessor, 'size', None)) is not None:
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


class Phase(NamedTuple):
    """One phase of a curriculum; None does not change a setting."""

    begin: int  # first epoch, counted from 0
    resolution: int | None = None  # side of the square training images in pixels
    strength: float | None = None  # factor of the augmentation magnitudes, 0 to 1

    def __str__(self) -> str:
        texts = {'resolution': f'{self.resolution} px', 'strength': f'strength {self.strength}'}
        return ', '.join(text for key, text in texts.items() if getattr(self, key) is not None)


def read_phases(phases: Sequence[Mapping[str, Any]]) -> tuple[Phase, ...]:
    """Read phases from a config; a ValueError names the phase, the key and what is allowed."""
    if not isinstance(phases, (list, tuple)) or not phases:
        raise ValueError(f'phases: got {phases!r}; expected a list of dicts')
    found = tuple(_read_phase(f'phases.{i}', phase) for i, phase in enumerate(phases))
    if found[0].begin != 0:
        raise ValueError(f'phases.0.begin: got {found[0].begin}; expected 0 for the first phase')
    for index, (before, after) in enumerate(pairwise(found), 1):
        where = f'phases.{index}'
        if after.begin <= before.begin:
            raise ValueError(
                f'{where}.begin: got {after.begin}; expected more than in the phase before '
                f'({before.begin})'
            )
        for key in ('resolution', 'strength'):
            if (getattr(before, key) is None) != (getattr(after, key) is None):
                raise ValueError(f'{where}.{key}: set it in all phases or in none')
        if after[1:] == before[1:]:
            raise ValueError(f'{where}: equals the phase before; remove it')
    return found


def _read_phase(where: str, phase: Any) -> Phase:
    keys = set(phase) if isinstance(phase, Mapping) else set()
    if 'begin' not in keys or len(keys) < 2 or not keys.issubset(Phase._fields):
        raise ValueError(
            f'{where}: got {phase!r}; expected a dict with begin, and resolution or strength or both'
        )
    found = Phase(**phase)
    check_integer(f'{where}.begin', found.begin, 0)
    if found.resolution is not None:
        check_integer(f'{where}.resolution', found.resolution, 1)
    if found.strength is not None:
        check_number(f'{where}.strength', found.strength, 0, 1)
    return found


def _replaces_pipelines(hook: Any) -> bool:
    """Return whether a hook of mmdet or mmpretrain replaces the pipeline of the dataset."""
    recipes = hook.schedule.values() if type(hook).__name__ == 'SwitchRecipeHook' else ()
    replaced = any('train_pipeline' in recipe for recipe in recipes)
    return replaced or type(hook).__name__ == 'PipelineSwitchHook'


class Phased(BaseTransform):
    """Apply one of several transforms, selected by ``index``, one integer in shared memory."""

    def __init__(self, variants: Sequence[Any], index: Tensor) -> None:
        self.variants = tuple(variants)
        self.index = index

    def __iter__(self) -> Iterator[Any]:
        return iter(self.variants)  # mmcv iterates over a transform to find random methods

    def transform(self, results: dict) -> dict | None:
        return self.variants[int(self.index)](results)


def install(dataset: Any, phases: Sequence[Phase], index: Tensor) -> dict[str, int]:
    """Replace transforms of a dataset, also of one inside wrappers, by ones that follow ``index``.

    Returns the number of transforms that change with the resolution, and with the strength.
    """
    counts = dict(resolution=0, strength=0)
    for inner in datasets_inside(dataset):
        for owner, place, transform in _places(inner.pipeline):
            key = _changed_by(transform)
            if key is None or getattr(phases[0], key) is None:
                continue
            change: Any = _resized if key == 'resolution' else weakened
            owner[place] = Phased([change(transform, getattr(p, key)) for p in phases], index)
            counts[key] += 1
    return counts


def weakened(transform: Any, strength: float) -> Any:
    """Return a copy of mmpretrain's AutoAugment or RandAugment with smaller magnitudes.

    The strength multiplies the magnitudes. For Solarize it multiplies the distance of the threshold
    from 256, for Posterize the number of removed bits (rounded). AutoContrast, Equalize and Invert
    have no magnitude.
    """
    copied = copy.deepcopy(transform)
    for _, _, part in _places(copied):
        if hasattr(part, 'transforms') or type(part).__name__ in _WITHOUT_MAGNITUDE:
            continue
        setting = next((key for key in _NEUTRAL if hasattr(part, key)), None)
        if getattr(part, 'magnitude_range', None) is not None:
            part.magnitude_level *= strength
        elif setting is None:
            name = type(part).__name__
            raise ValueError(f'{type(transform).__name__}: {name} has no known magnitude')
        else:
            whole = getattr(part, setting)
            value = whole + (1 - strength) * (_NEUTRAL[setting] - whole)
            setattr(part, setting, round(value) if setting == 'bits' else value)
    return copied


def _resized(transform: Any, resolution: int) -> Any:
    copied = copy.copy(transform)
    copied.scale = (resolution, resolution)
    return copied


def _changed_by(transform: Any) -> str | None:
    """Return the setting of a phase that changes this transform, if any."""
    modules = {kind.__name__: kind.__module__ for kind in type(transform).__mro__}
    scale = getattr(transform, 'scale', None)
    resizes = 'RandomResizedCrop' in modules or (
        'Resize' in modules and not getattr(transform, 'keep_ratio', False)
    )
    if resizes and isinstance(scale, (list, tuple)) and len(set(scale)) == 1:
        return 'resolution'
    policies = [modules.get(name, '') for name in ('AutoAugment', 'RandAugment')]
    return 'strength' if any(name.startswith('mmpretrain.') for name in policies) else None


def _places(node: Any) -> Iterator[tuple[list, int, Any]]:
    """Yield every transform in a pipeline or a wrapper of transforms, with its list and position."""
    held = node if isinstance(node, list) else getattr(node, 'transforms', None)
    if not isinstance(held, list):
        if held is not None:
            yield from _places(held)
        return
    for place, transform in enumerate(held):
        yield held, place, transform
        yield from _places(transform)
