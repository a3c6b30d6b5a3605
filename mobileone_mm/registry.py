"""Registries of scope ``mobileone_mm``, children of mmengine's roots.

mmengine imports ``<scope>.registry`` for a config with ``type='<scope>.Name'``. Because of this file
name ``type='mobileone_mm.MobileOne'`` works in any default scope without ``custom_imports``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as ROOT_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

SCOPE = 'mobileone_mm'


class LazyRegistry(Registry):
    """A registry that imports a module only when its class is looked up.

    mmengine imports all ``locations`` at the first look-up of any name. A class that extends a host
    (for example mmdet's SSD head) must not be imported for a user of the backbone alone: the host may
    be absent or take seconds to import. ``lazy`` lists such classes.

    Args:
        lazy: From the name of a class to the module that registers it.
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
#: transforms of mmpretrain that have a faster version of the same name here, with the same pixels
FASTER = ('RandAugment', 'RandomResizedCrop')
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
        **dict.fromkeys(
            ('AutoAugment', 'RandAugment', 'RandomResizedCrop'), 'mobileone_mm.data.augmentations'
        ),
        'LoadImage': 'mobileone_mm.data.loading',
        'LoadSegAnnotations': 'mobileone_mm.data.masks',
        **dict.fromkeys(('FixedView', 'StoredView'), 'mobileone_mm.distill.views'),
    },
)
HOOKS = LazyRegistry(
    'hook',
    parent=ROOT_HOOKS,
    scope=SCOPE,
    lazy={
        'AverageCheckHook': 'mobileone_mm.hooks.average_check',
        'BestDeployHook': 'mobileone_mm.hooks.best_deploy',
        'ChannelsLastHook': 'mobileone_mm.hooks.channels_last',
        'CheckpointCheckHook': 'mobileone_mm.hooks.checkpoint_check',
        'CheckpointHook': 'mobileone_mm.hooks.checkpoint',
        'CurriculumHook': 'mobileone_mm.hooks.curriculum',
        'DeployEvalHook': 'mobileone_mm.hooks.deploy_eval',
        'IterationSeedHook': 'mobileone_mm.hooks.iteration_seed',
        'LossScaleHook': 'mobileone_mm.hooks.loss_scale',
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
