"""Keys of a config that the hosts would ignore without a word.

Most mistyped keys end in a TypeError of the constructor that gets them (see
:mod:`mobileone_mm.config.explain`). The checks here are for the places where the hosts read a dict by
``get`` and never look at the rest: a mistyped key there leaves its setting off, and nobody sees it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OPTIMIZERS
from mmengine.runner import Priority, Runner, get_priority

from ..errors import InputError
from .spelling import did_you_mean, mistyped

# What the Runner takes, what it looks up in the config by itself, and what the tools look up.
TOP_LEVEL_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing',
    'channels_last',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'test_pipeline',
    'train_pipeline',
    'tta_model',
    'tta_pipeline',
}
DEFAULT_HOOKS = frozenset(
    {
        'checkpoint',
        'logger',
        'param_scheduler',
        'runtime_info',
        'sampler_seed',
        'timer',
        'visualization',
    }
)
ENV_KEYS = frozenset({'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'})
AUTO_SCALE_KEYS = frozenset({'base_batch_size', 'enable'})
PARAMWISE_KEYS = frozenset(
    {
        'bias_decay_mult',
        'bias_lr_mult',
        'bypass_duplicate',
        'custom_keys',
        'dcn_offset_lr_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'norm_decay_mult',
    }
)
#: constructors of optimizers that read ``paramwise_cfg`` in mmengine's way
CONSTRUCTORS = ('DefaultOptimWrapperConstructor', 'mobileone_mm.OptimWrapperConstructor')
CUSTOM_KEYS = frozenset({'decay_mult', 'lr_mult'})
RECIPE_KEYS = frozenset({'action_epoch', 'batch_augments', 'loss', 'train_pipeline'})
# Keys that the models of the three hosts look up in their train_cfg and test_cfg.
MODEL_CFG_KEYS = frozenset(
    {
        'allowed_border', 'assigner', 'augments', 'crop_size', 'debug', 'mask_thr_binary',
        'max_per_image', 'max_per_img', 'min_bbox_size', 'mode', 'neg_pos_ratio', 'nms', 'nms_pre',
        'pos_weight', 'probs', 'rcnn', 'rpn', 'rpn_proposal', 'sampler', 'score_thr',
        'smoothl1_beta', 'stride',
    }
)  # fmt: skip


def check_keys(cfg: Config, training: bool = True) -> None:
    """Check the parts of a config whose unknown keys the hosts ignore.

    Variables of the config's own are left alone: at the top level, and in the models' ``train_cfg``
    and ``test_cfg``, only a name that differs from a known one by a typing error is rejected.

    Args:
        cfg: The config.
        training: Whether optimizer and recipes count; some of the hosts' own configs have keys there
            that nothing reads, which does no harm to a test.

    Raises:
        InputError: Naming the path of the key and what was probably meant.
    """
    for key in cfg._cfg_dict:
        _check_near('', key, TOP_LEVEL_KEYS)
    for name in _mapping(cfg.get('default_hooks')):
        _check_near('default_hooks.', name, DEFAULT_HOOKS)
    _check_closed('env_cfg', cfg.get('env_cfg'), ENV_KEYS)
    _check_closed('auto_scale_lr', cfg.get('auto_scale_lr'), AUTO_SCALE_KEYS)
    if training:
        _check_optimizer(cfg)
        _check_recipes(cfg)
    for path, node in model_settings(_mapping(cfg.get('model')), 'model'):
        for key in node:
            _check_near(f'{path}.', key, MODEL_CFG_KEYS)


def check_hooks(cfg: Config) -> None:
    """Check the arguments of hooks that take any keyword and use it late or never.

    Needs the host's registry: call it after the default scope is set.

    Raises:
        InputError: Naming the path of the argument and what was probably meant.
    """
    hooks: list[tuple[str, Any]] = [
        (f'default_hooks.{name}', hook) for name, hook in _mapping(cfg.get('default_hooks')).items()
    ]
    hooks += [(f'custom_hooks.{i}', hook) for i, hook in enumerate(cfg.get('custom_hooks') or ())]
    for path, hook in hooks:
        if not isinstance(hook, (Mapping, Hook)) and hook is not None:
            raise InputError(
                f"{path}: got {str(hook)[:60]!r}; a dict with 'type' is needed, on the command line "
                '"[dict(type=\'X\')]"'
            )
        _check_priority(path, hook)
        kind = hook.get('type') if isinstance(hook, Mapping) else None
        cls = _hook_class(kind) if isinstance(kind, str) else kind
        if isinstance(kind, str) and cls is None:
            raise InputError(f"{path}.type: '{kind}' is no known hook{_hint(kind)}")
        if inspect.isclass(cls):
            known = named_arguments(cls)
            for key in _mapping(hook):
                if key not in known | {'type', 'priority'}:
                    _check_near(f'{path}.', key, known)


def _hint(kind: str) -> str:
    from mmengine.registry import HOOKS

    with HOOKS.switch_scope_and_registry(None) as registry:
        known = set(registry.module_dict) | set(HOOKS.module_dict)
    return did_you_mean(kind, known) or '; import the module that has it with custom_imports'


def _check_priority(path: str, hook: Any) -> None:
    priority = _mapping(hook).get('priority')
    if priority is None:
        return
    try:
        get_priority(priority)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f'{path}.priority: got {priority!r}; 0 to 100 or one of '
            f'{", ".join(level.name for level in Priority)} is allowed'
        ) from error


def check_optimizer(cfg: Config) -> None:
    """Check the name of the optimizer, which mmengine would call without having found it.

    Needs the host's registry: call it after the default scope is set.

    Raises:
        InputError: There is no optimizer of that name.
    """
    name = _mapping(_mapping(cfg.get('optim_wrapper')).get('optimizer')).get('type')
    if not isinstance(name, str):
        return
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if registry.get(name) is None:
            known = set(registry.module_dict) | set(OPTIMIZERS.module_dict)
            hint = did_you_mean(name, known) or '; torch.optim has the usual ones'
            raise InputError(f"optim_wrapper.optimizer.type: got '{name}', which is unknown{hint}")


def _hook_class(name: str) -> Any:
    from mmengine.registry import HOOKS

    with HOOKS.switch_scope_and_registry(None) as registry:
        return registry.get(name)


def named_arguments(cls: type) -> set[str]:
    """Names of the arguments that a class and the classes it extends spell out."""
    names: set[str] = set()
    for base in inspect.getmro(cls):
        init = vars(base).get('__init__')
        if inspect.isfunction(init):
            kinds = inspect.signature(init).parameters.values()
            names |= {p.name for p in kinds if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return names - {'self'}


def model_settings(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """All ``train_cfg`` and ``test_cfg`` of a model's config that are plain settings, with paths."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ('train_cfg', 'test_cfg') and isinstance(value, Mapping):
                yield f'{path}.{key}', value
            yield from model_settings(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from model_settings(value, f'{path}.{index}')


def _check_recipes(cfg: Config) -> None:
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if _type_name(hook) == 'SwitchRecipeHook':
            for place, recipe in enumerate(hook.get('schedule') or ()):
                _check_closed(f'custom_hooks.{index}.schedule.{place}', recipe, RECIPE_KEYS)


def _check_optimizer(cfg: Config) -> None:
    wrapper = _mapping(cfg.get('optim_wrapper'))
    if wrapper.get('constructor', CONSTRUCTORS[0]) not in CONSTRUCTORS:
        return
    path = 'optim_wrapper.paramwise_cfg'
    paramwise = _mapping(wrapper.get('paramwise_cfg'))
    _check_closed(path, paramwise, PARAMWISE_KEYS)
    for name, item in _mapping(paramwise.get('custom_keys')).items():
        # Other keys become settings of the parameter group, which an optimizer or a hook may read.
        for key in _mapping(item):
            _check_near(f'{path}.custom_keys.{name}.', key, CUSTOM_KEYS)


def _check_closed(path: str, node: Any, known: frozenset[str]) -> None:
    for key in _mapping(node):
        if key not in known:
            raise InputError(f"config: {path} has no '{key}'{did_you_mean(key, known)}")


def _check_near(prefix: str, key: str, known: Sequence[str] | set[str] | frozenset[str]) -> None:
    meant = None if key in known else mistyped(key, known)
    if meant:
        raise InputError(
            f"config: nothing reads '{prefix}{key}'; did you mean '{meant}'? "
            '(rename it if it is a variable of your own)'
        )


def _mapping(node: Any) -> Mapping:
    return node if isinstance(node, Mapping) else {}


def _type_name(node: Any) -> str:
    kind = _mapping(node).get('type', '')
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')
