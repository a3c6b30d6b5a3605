"""Registries of scope ``mobileone_mm``, children of mmengine's roots.

mmengine imports ``<scope>.registry`` when a config says ``type='<scope>.Name'``, so this file name
is what makes ``type='mobileone_mm.MobileOne'`` work from any default scope without
``custom_imports``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as ROOT_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

SCOPE = 'mobileone_mm'


class LazyRegistry(Registry):
    """A registry that imports some of its modules only when their name is asked for.

    mmengine imports every entry of ``locations`` at the first look-up of any name. A class that
    extends a host (mmdet's SSD head, say) must not be imported for a user who only wants the
    backbone: that host may be absent, or take seconds to load. Such names stand in ``lazy``.

    Args:
        lazy: Name of a class to the module that registers it.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def get(self, key: str) -> Any:
        module = self._lazy.get(key.rpartition('.')[2]) if isinstance(key, str) else None
        if module is not None:
            import_module(module)
        return super().get(key)


MODELS = LazyRegistry(
    'model',
    parent=ROOT_MODELS,
    scope=SCOPE,
    locations=['mobileone_mm.models', 'mobileone_mm.weights.host_reading'],
    lazy={
        **dict.fromkeys(('SSDHead', 'SSDNeck'), 'mobileone_mm.models.ssd'),
        'DistillClassifier': 'mobileone_mm.distill.classifier',
        'DistillLoss': 'mobileone_mm.distill.losses',
    },
)
WEIGHT_INITIALIZERS = LazyRegistry(
    'weight initializer',
    parent=ROOT_WEIGHT_INITIALIZERS,
    scope=SCOPE,
    locations=['mobileone_mm.models'],
)
TRANSFORMS = LazyRegistry(
    'transform',
    parent=ROOT_TRANSFORMS,
    scope=SCOPE,
    lazy={
        **dict.fromkeys(('AutoAugment', 'RandAugment'), 'mobileone_mm.data.auto_augment'),
        'LoadImage': 'mobileone_mm.data.loading',
        'LoadSegAnnotations': 'mobileone_mm.data.masks',
        'RandomResizedCrop': 'mobileone_mm.data.cropping',
        **dict.fromkeys(('FixedView', 'StoredView'), 'mobileone_mm.distill.views'),
    },
)
HOOKS = LazyRegistry(
    'hook',
    parent=ROOT_HOOKS,
    scope=SCOPE,
    lazy={
        'AverageCheckHook': 'mobileone_mm.training.averages',
        'BestDeployHook': 'mobileone_mm.hooks.best_deploy',
        'CheckpointCheckHook': 'mobileone_mm.hooks.checkpoint_check',
        'CheckpointHook': 'mobileone_mm.hooks.checkpoint',
        'CurriculumHook': 'mobileone_mm.training.curriculum',
        'DeployEvalHook': 'mobileone_mm.hooks.deploy_eval',
        'IterationSeedHook': 'mobileone_mm.training.seeding',
        'PredictionSamplesHook': 'mobileone_mm.hooks.prediction_samples',
        'RecalibrateHook': 'mobileone_mm.hooks.recalibrate',
        'ScheduleLogHook': 'mobileone_mm.hooks.schedule_log',
        'TeacherOutputsCheckHook': 'mobileone_mm.hooks.teacher_outputs',
    },
)
OPTIM_WRAPPER_CONSTRUCTORS = LazyRegistry(
    'optimizer wrapper constructor',
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    lazy={'OptimWrapperConstructor': 'mobileone_mm.training.param_groups'},
)
DATASETS = LazyRegistry(
    'dataset',
    parent=ROOT_DATASETS,
    scope=SCOPE,
    lazy={'PackedDataset': 'mobileone_mm.data.packed.dataset'},
)
DATA_SAMPLERS = LazyRegistry(
    'data sampler',
    parent=ROOT_DATA_SAMPLERS,
    scope=SCOPE,
    lazy={'ShardSampler': 'mobileone_mm.data.packed.sampler'},
)
METRICS = LazyRegistry('metric', parent=ROOT_METRICS, scope=SCOPE)
