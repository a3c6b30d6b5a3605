"""Registries of scope ``mobileone_mm``, children of mmengine's roots.

mmengine imports ``<scope>.registry`` for a config with ``type='<scope>.Name'``. Because of this file
name ``type='mobileone_mm.MobileOne'`` works in any default scope without ``custom_imports``.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = 'mobileone_mm'
#: transforms of mmpretrain that have a faster version of the same name here, with the same pixels
FASTER = ('RandAugment', 'RandomResizedCrop')


class LazyRegistry(Registry):
    """A registry that imports a module only when its class, a key of ``lazy``, is looked up.

    mmengine imports all ``locations`` at the first look-up of any name. A class that extends a host
    (for example mmdet's SSD head) must not be imported for a user of the backbone alone: the host may
    be absent or take seconds to import.
    """

    def __init__(
        self, root: Registry, lazy: Mapping[str, str] | None = None, locations: Sequence[str] = ()
    ) -> None:
        places = [f'{SCOPE}.{module}' for module in locations]
        super().__init__(root.name, parent=root, scope=SCOPE, locations=places)
        self._lazy = dict(lazy or {})

    def get(self, key: str) -> Any:
        module = self._lazy.get(key.rpartition('.')[2]) if isinstance(key, str) else None
        if module is not None:
            import_module(f'{SCOPE}.{module}')
        return super().get(key)


MODELS = LazyRegistry(
    roots.MODELS,
    {
        'SSDHead': 'models.ssd',
        'SSDNeck': 'models.ssd',
        'DistillClassifier': 'distill.classifier',
        'DistillLoss': 'distill.losses',
    },
    locations=['models', 'weights.mmengine_loader'],
)
WEIGHT_INITIALIZERS = LazyRegistry(roots.WEIGHT_INITIALIZERS, locations=['models'])
TRANSFORMS = LazyRegistry(
    roots.TRANSFORMS,
    {
        'AutoAugment': 'data.augmentations',
        'RandAugment': 'data.augmentations',
        'RandomResizedCrop': 'data.augmentations',
        'LoadImage': 'data.loading',
        'LoadSegAnnotations': 'data.masks',
        'FixedView': 'distill.views',
        'StoredView': 'distill.views',
    },
)
HOOKS = LazyRegistry(
    roots.HOOKS,
    {
        'AverageCheckHook': 'hooks.average_check',
        'BestDeployHook': 'hooks.best_deploy',
        'ChannelsLastHook': 'hooks.channels_last',
        'CheckpointCheckHook': 'hooks.checkpoint_check',
        'CheckpointHook': 'hooks.checkpoint',
        'CurriculumHook': 'hooks.curriculum',
        'DeployEvalHook': 'hooks.deploy_eval',
        'IterationSeedHook': 'hooks.iteration_seed',
        'EvaluatedImagesHook': 'hooks.evaluated_images',
        'LossCheckHook': 'hooks.loss_check',
        'LossScaleHook': 'hooks.loss_scale',
        'PredictionCheckHook': 'hooks.prediction_check',
        'PredictionSamplesHook': 'hooks.prediction_samples',
        'RecalibrateHook': 'hooks.recalibrate',
        'ScheduleLogHook': 'hooks.schedule_log',
        'TeacherOutputsCheckHook': 'hooks.teacher_outputs',
    },
)
OPTIM_WRAPPER_CONSTRUCTORS = LazyRegistry(
    roots.OPTIM_WRAPPER_CONSTRUCTORS, {'OptimWrapperConstructor': 'training.param_groups'}
)
DATASETS = LazyRegistry(roots.DATASETS, {'PackedDataset': 'data.packed.dataset'})
DATA_SAMPLERS = LazyRegistry(roots.DATA_SAMPLERS, {'ShardSampler': 'data.packed.sampler'})
