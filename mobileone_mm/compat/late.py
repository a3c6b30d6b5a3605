"""Repair what can be repaired if mmcv or a host was imported before this package."""

import importlib
import sys
from types import ModuleType
from typing import Any

from .finders import without_multimodal_models

_HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
#: If an import from mmcv.ops fails, OneDL's hosts define a function or class with this message.
_PLACEHOLDER = 'requires mmcv to be compiled with ops'


def complete_imported() -> None:
    """Complete what is imported already: mmcv's attention class, mmpretrain's list of dependencies.

    ``mmcv.cnn.bricks.transformer`` turns the failed import of the class into a warning, and then
    mmdet and mmseg cannot import the name.
    """
    for package in {'torchvision', 'mmcv.ops'}.difference(sys.modules):
        # The submodules that a failed import left.
        for name in [name for name in sys.modules if name.startswith(f'{package}.')]:
            del sys.modules[name]
    module: Any = sys.modules.get('mmcv.cnn.bricks.transformer')
    if module is not None and not hasattr(module, 'MultiScaleDeformableAttention'):
        source = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
        module.MultiScaleDeformableAttention = source.MultiScaleDeformableAttention
    dependency = sys.modules.get('mmpretrain.utils.dependency')
    if dependency is not None:
        without_multimodal_models(dependency)


def placeholders() -> list[str]:
    """Return the sorted names of operators that loaded modules of the hosts have replaced."""
    return sorted(
        {
            name
            for module_name, module in list(sys.modules.items())
            if module_name.partition('.')[0] in _HOSTS and isinstance(module, ModuleType)
            for name, value in list(vars(module).items())
            if getattr(value, '__module__', None) == module_name and _PLACEHOLDER in _texts(value)
        }
    )


def _texts(value: object) -> str:
    maker = vars(value).get('__init__') if isinstance(value, type) else value
    return repr(getattr(getattr(maker, '__code__', None), 'co_consts', ''))
