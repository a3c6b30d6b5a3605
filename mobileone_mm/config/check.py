"""Checks of a config for what the hosts ignore or report late.

Most mistyped keys end in a TypeError of the constructor that gets them (see
:mod:`mobileone_mm.config.explain`). These checks are for the places where the hosts read a dict by
``get`` and ignore the other keys, and for values whose error would name neither the key nor the config.
"""

import importlib.util
import inspect
import logging
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from multiprocessing import get_all_start_methods
from os import PathLike
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS, OPTIMIZERS, VISBACKENDS, Registry
from mmengine.runner import Priority, Runner, get_priority

from ..errors import InputError
from .best_metric import check_save_best, warn_without_validation
from .coco_metric import check_coco_metrics
from .losses import check_losses
from .preprocessor import check_one_channel, check_preprocessor
from .seg_heads import check_seg_heads
from .spelling import did_you_mean, mistyped
from .tree import arguments_of, class_of, mapping, type_name, walk

# Arguments of the Runner, keys that it looks up in the config, and keys that the tools look up.
TOP_LEVEL_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing', 'changes', 'channels_last', 'compile', 'custom_imports',
    'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn',
    'test_pipeline', 'train_pipeline', 'tta_model', 'tta_pipeline',
}  # fmt: skip
_DEFAULT_HOOKS = (
    'average_check', 'checkpoint', 'evaluated_images', 'iteration_seed', 'logger', 'loss_check',
    'loss_scale', 'param_scheduler', 'prediction_check', 'runtime_info', 'sampler_seed', 'timer',
    'visualization',
)  # fmt: skip
#: constructors of optimizers that read ``paramwise_cfg`` as mmengine does; None is the default
_CONSTRUCTORS = (None, 'DefaultOptimWrapperConstructor', 'mobileone_mm.OptimWrapperConstructor')
# Keys that the models of the three hosts look up in their train_cfg and test_cfg.
_MODEL_CFG_KEYS = (
    'allowed_border', 'assigner', 'augments', 'crop_size', 'debug', 'mask_thr_binary', 'max_per_image',
    'max_per_img', 'min_bbox_size', 'mode', 'neg_pos_ratio', 'nms', 'nms_pre', 'pos_weight', 'probs',
    'rcnn', 'rpn', 'rpn_proposal', 'sampler', 'score_thr', 'smoothl1_beta', 'stride',
)  # fmt: skip
#: Dicts whose unknown keys the hosts ignore: pattern of the path, keys, and whether the user may add
#: variables. If so, only a name that differs from a known one by a typing error is rejected.
_KNOWN: tuple[tuple[str, Collection[str], bool], ...] = (
    ('', TOP_LEVEL_KEYS, True),
    ('default_hooks', _DEFAULT_HOOKS, True),
    ('env_cfg', ('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'), False),
    ('auto_scale_lr', ('base_batch_size', 'enable'), False),
    # Arguments of torch's two functions that clip gradients.
    ('optim_wrapper.clip_grad', (
        'clip_value', 'error_if_nonfinite', 'foreach', 'max_norm', 'norm_type', 'type',
    ), False),
    ('optim_wrapper.paramwise_cfg', (
        'bias_decay_mult', 'bias_lr_mult', 'bypass_duplicate', 'custom_keys', 'dcn_offset_lr_mult',
        'dwconv_decay_mult', 'flat_decay_mult', 'norm_decay_mult',
    ), False),
    # Other keys become settings of the parameter group, which an optimizer or a hook may read.
    ('optim_wrapper.paramwise_cfg.custom_keys.*', ('decay_mult', 'lr_mult'), True),
    # of SwitchRecipeHook
    ('custom_hooks.*.schedule.*', ('action_epoch', 'batch_augments', 'loss', 'train_pipeline'), False),
    ('model*.train_cfg', _MODEL_CFG_KEYS, True),
    ('model*.test_cfg', _MODEL_CFG_KEYS, True),
    ('model*.nms', (
        'class_agnostic', 'iou_threshold', 'max_num', 'method', 'min_score', 'offset',
        'score_threshold', 'sigma', 'split_thr', 'type',
    ), False),
)  # fmt: skip
#: packages of mmengine's visualizer back ends (AimVisBackend ...) that pip does not install with it
_BACKEND_PACKAGES = ('aim', 'clearml', 'dvclive', 'mlflow', 'neptune', 'tensorboard', 'wandb')
_PARTS = ('train', 'val', 'test')
#: samplers of the hosts that leave images out, yield some twice, or never end
_SAMPLERS_OF_TRAINING = {
    'ClassAwareSampler', 'CustomSampleSizeSampler', 'InfiniteSampler', 'MultiDataSampler',
    'MultiSourceSampler', 'RepeatAugSampler',
}  # fmt: skip
#: settings with their types and what is allowed
_TYPES: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ('channels_last', (bool,), 'True or False'),
    ('compile', (bool, Mapping), 'True, False or a dict'),
    ('work_dir', (str, PathLike), 'a string; use --work-dir, or write ./ before the name'),
    ('custom_hooks', (list, tuple), 'a list of dicts, such as custom_hooks="[dict(type=\'X\')]"'),
)
#: what is allowed: kinds, least value, whether -1 stands for never, settings
_NUMBERS: tuple[tuple[tuple[type, ...], int, bool, tuple[str, ...]], ...] = (
    ((int,), 1, False, (
        *(f'{part}_dataloader.batch_size' for part in _PARTS), 'optim_wrapper.accumulative_counts',
        'default_hooks.logger.interval',
    )),
    ((int,), 0, False, (
        *(f'{part}_dataloader.num_workers' for part in _PARTS), 'train_cfg.val_begin',
        'randomness.seed',
    )),
    ((int,), 1, True, (
        'default_hooks.checkpoint.interval', 'default_hooks.checkpoint.max_keep_ckpts',
    )),
    # mmengine accepts whole floats such as 1e5 here.
    ((int, float), 1, False, (
        'train_cfg.max_epochs', 'train_cfg.max_iters', 'train_cfg.val_interval',
    )),
    ((int, float), 0, False, (
        'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay',
        'optim_wrapper.clip_grad.max_norm', 'optim_wrapper.clip_grad.clip_value',
    )),
)  # fmt: skip


def check_values(cfg: Config) -> None:
    """Check the settings that every run has; an absent one or None is allowed."""
    for kinds, least, never, paths in _NUMBERS:
        for path in paths:
            value = _at(cfg, path)
            number = isinstance(value, kinds) and not isinstance(value, bool)
            if value is not None and not (number and (value >= least or (never and value == -1))):
                kind = 'a number' if float in kinds else 'an integer'
                raise InputError(
                    f'{path}: got {value!r}; expected {kind} of at least {least}'
                    f'{", or -1 for never" if never else ""}'
                )
    for key, kinds, allowed in _TYPES:
        if not isinstance(cfg.get(key), (*kinds, type(None))):
            raise InputError(f'{key}: got {cfg[key]!r:.60}; expected {allowed}')
    if (_at(cfg, 'randomness.seed') or 0) >= 2**32:
        raise InputError(
            f'randomness.seed: got {cfg.randomness.seed}; expected at most {2**32 - 1}'
        )
    method, known = _at(cfg, 'env_cfg.mp_cfg.mp_start_method'), get_all_start_methods()
    if method not in (None, *known):
        raise InputError(
            f'env_cfg.mp_cfg.mp_start_method: got {method!r}; expected one of {", ".join(known)}'
        )
    level = cfg.get('log_level', 'INFO')
    if not isinstance(level, int) and not isinstance(logging.getLevelName(level), int):
        raise InputError(f'log_level: got {level!r}; expected DEBUG, INFO, WARNING or ERROR')


def check_keys(cfg: Config, training: bool = True) -> None:
    """Check the dicts of a config whose unknown keys the hosts ignore.

    ``training`` checks the optimizer and the hooks, too. Some of the hosts' own configs have keys
    there that nothing reads; they do no harm to a test.
    """
    skipped = [
        f'{path}.'
        for path, hook in _hooks(cfg)
        if type_name(hook).rpartition('.')[2] != 'SwitchRecipeHook'
    ]
    if _at(cfg, 'optim_wrapper.constructor') not in _CONSTRUCTORS:
        skipped.append('optim_wrapper.paramwise_cfg')
    if not training:
        skipped += ['optim_wrapper.', 'custom_hooks.']
    for path, node in walk(cfg._cfg_dict):
        foreign = path.endswith('.nms') and node.get('type', 'nms') not in ('nms', 'soft_nms')
        if foreign or path.startswith(tuple(skipped)):
            continue
        for pattern, known, is_open in _KNOWN:
            if fnmatchcase(path, pattern):
                for key in node:
                    if is_open:
                        _check_near(path, key, known)
                    elif key not in known:
                        raise InputError(f"config: {path} has no '{key}'{did_you_mean(key, known)}")


def check_parts(cfg: Config, evaluator: str) -> None:
    """Check the parts of a run, such as hooks and metrics, in the default scope of its config.

    ``evaluator`` is ``val_evaluator`` or ``test_evaluator``.
    """
    _check_evaluation_loader(cfg, evaluator.replace('evaluator', 'dataloader'))
    _check_topk(cfg, evaluator)
    check_coco_metrics(cfg, evaluator)
    if evaluator == 'val_evaluator':
        warn_without_validation(cfg)
    for path, hook in _hooks(cfg):
        _check_hook(path, hook)
        if evaluator == 'val_evaluator' and type_name(hook).endswith('CheckpointHook'):
            check_save_best(cfg, path, mapping(hook))
    kind = _at(cfg, 'optim_wrapper.optimizer.type')
    _class_of('optim_wrapper.optimizer', kind, OPTIMIZERS, 'torch.optim has the usual optimizers')
    if evaluator == 'val_evaluator' and _at(cfg, 'optim_wrapper.optimizer.lr') == 0:
        text = 'optim_wrapper.optimizer.lr: got 0: no weight changes, unless a scheduler raises it'
        print_log(text, 'current', logging.WARNING)
    _check_back_ends(cfg)
    check_losses(cfg)
    check_preprocessor(cfg, training=evaluator == 'val_evaluator')
    check_one_channel(cfg, evaluator)
    check_seg_heads(cfg, evaluator, training=evaluator == 'val_evaluator')
    for loop in ('val', 'test'):
        parts = [f'{loop}_{part}' for part in ('dataloader', 'cfg', 'evaluator')]
        missing = [name for name in parts if cfg.get(name) is None]
        if missing and len(missing) < len(parts):
            raise InputError(
                f'config: has no {" and no ".join(missing)}; expected all of {", ".join(parts)}, or '
                'none of them'
            )


def _hooks(cfg: Config) -> Iterator[tuple[str, Any]]:
    for name, hook in mapping(cfg.get('default_hooks')).items():
        yield f'default_hooks.{name}', hook
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        yield f'custom_hooks.{index}', hook


def _check_hook(path: str, hook: Any) -> None:
    """Check a hook; some hooks of the hosts take any keyword and use it late or never."""
    if not isinstance(hook, (Mapping, Hook)) and hook is not None:
        raise InputError(f"{path}: got {str(hook)[:60]!r}; expected a dict with 'type'")
    node = mapping(hook)
    if node and 'type' not in node:
        name = path.rpartition('.')[2]
        raise InputError(f"{path}: has no 'type'{did_you_mean(name, _DEFAULT_HOOKS)}")
    try:
        get_priority(node.get('priority', 'NORMAL'))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f'{path}.priority: got {node["priority"]!r}; expected 0 to 100 or one of '
            f'{", ".join(level.name for level in Priority)}'
        ) from error
    hint = 'import the module that registers it with custom_imports'
    cls = _class_of(path, node.get('type'), HOOKS, hint)
    if inspect.isclass(cls):
        known = arguments_of(cls)
        for key in set(node) - known - {'type', 'priority'}:
            _check_near(path, key, known)


def _class_of(path: str, kind: Any, root: Registry, otherwise: str) -> Any:
    """Return the class that a type names in the default scope."""
    if not isinstance(kind, str):
        return kind
    with root.switch_scope_and_registry(None) as registry:
        found = registry.get(kind)
        if found is None:
            hint = did_you_mean(kind, {*registry.module_dict, *root.module_dict})
            raise InputError(f"{path}.type: unknown {root.name} '{kind}'{hint or f'; {otherwise}'}")
    return found


def _check_back_ends(cfg: Config) -> None:
    given, path = _at(cfg, 'visualizer.vis_backends'), 'visualizer.vis_backends'
    listed = isinstance(given, (list, tuple))
    for index, node in enumerate(given if listed else filter(None, [given])):
        where = f'{path}.{index}' if listed else path
        if not isinstance(node, Mapping):
            if isinstance(node, str):
                raise InputError(f"{where}: got {node!r:.60}; expected a dict with 'type'")
            continue
        name = type_name(node).rpartition('.')[2]
        package = next((p for p in _BACKEND_PACKAGES if name.lower() == f'{p}visbackend'), None)
        if package is not None and importlib.util.find_spec(package) is None:
            raise InputError(
                f'{where}.type: {name} needs the package {package}, which is not installed; run '
                f'`pip install {package}` or remove the back end'
            )
        hint = 'import the module that registers it with custom_imports'
        cls = _class_of(where, node.get('type'), VISBACKENDS, hint)
        try:
            inspect.signature(cls).bind_partial(**{k: v for k, v in node.items() if k != 'type'})
        except TypeError as error:
            raise InputError(f'{where}: {name}: {error}') from error


def _check_evaluation_loader(cfg: Config, name: str) -> None:
    """Check that a loader for evaluation yields each image once.

    The hosts do not evaluate an image that is left out, or count its objects as missed.
    """
    loader = mapping(cfg.get(name))
    batches = mapping(loader.get('batch_sampler'))
    for path, node in ((name, loader), (f'{name}.batch_sampler', batches)):
        if node.get('drop_last') and loader.get('batch_size', 1) != 1:
            raise InputError(
                f'{path}.drop_last: got {node["drop_last"]!r}; expected False: an incomplete last '
                'batch is left out of the evaluation'
            )
    sampler = mapping(loader.get('sampler'))
    cls = class_of(sampler, sampler.get('_scope_'))
    if not _SAMPLERS_OF_TRAINING.isdisjoint(
        base.__name__ for base in inspect.getmro(cls or object)
    ):
        raise InputError(
            f'{name}.sampler.type: got {type_name(sampler)!r}, which does not yield each image once; '
            "expected dict(type='DefaultSampler', shuffle=False)"
        )


def _check_topk(cfg: Config, evaluator: str) -> None:
    """Check ``topk`` of a classifier; mmpretrain fails after an epoch of training."""
    head = mapping(_at(cfg, 'model.head'))
    number = head.get('num_classes')
    if not isinstance(number, int):
        return
    for path, node in (('model.head', head), *walk(cfg.get(evaluator), evaluator)):
        topk = node.get('topk')
        ranks = topk if isinstance(topk, (list, tuple)) else [topk]
        if topk is not None and not all(type(k) is int and 1 <= k <= number for k in ranks or [0]):
            raise InputError(
                f'{path}.topk: got {topk!r}, but the model has {number} classes; set it to (1,)'
            )


def _check_near(path: str, key: str, known: Collection[str]) -> None:
    meant = None if key in known else mistyped(key, known)
    if meant:
        raise InputError(
            f"config: nothing reads '{f'{path}.{key}'.lstrip('.')}'; did you mean '{meant}'? "
            '(rename it if it is a variable of your own)'
        )


def _at(cfg: Config, path: str) -> Any:
    """Return the value at a dotted path through dicts, or None."""
    node: Any = cfg._cfg_dict
    for key in path.split('.'):
        node = mapping(node).get(key)
    return node
