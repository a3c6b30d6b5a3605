"""Repair what can be repaired if mmcv or a host was imported before this package."""

import importlib
import sys
import warnings
from types import ModuleType

from .transformers5 import without_multimodal_models

_HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
#: If an import from mmcv.ops fails, OneDL's hosts define a function or class with this message.
_PLACEHOLDER = 'requires mmcv to be compiled with ops'


def forget_failed(*packages: str) -> None:
    """Drop the submodules that a failed import of a package left in ``sys.modules``."""
    for package in packages:
        if package not in sys.modules:
            for name in [name for name in sys.modules if name.startswith(f'{package}.')]:
                del sys.modules[name]


def complete_imported() -> None:
    """Complete what is imported already: mmcv's attention class, mmpretrain's list of dependencies.

    ``mmcv.cnn.bricks.transformer`` turns the failed import of the class into a warning, and then
    mmdet and mmseg cannot import the name.
    """
    module = sys.modules.get('mmcv.cnn.bricks.transformer')
    name = 'MultiScaleDeformableAttention'
    if module is not None and not hasattr(module, name):
        source = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
        setattr(module, name, getattr(source, name))
    dependency = sys.modules.get('mmpretrain.utils.dependency')
    if dependency is not None:
        without_multimodal_models(dependency)


def warn_of_placeholders() -> None:
    """Warn if a host has replaced operators by placeholders; name the operators and the fix."""
    found = placeholders()
    if found:
        warnings.warn(
            f'imported before mobileone_mm, the hosts have replaced {", ".join(found)} of mmcv by '
            'placeholders that only raise: import mobileone_mm first, or run the script as '
            '`python -m mobileone_mm.compat SCRIPT ARGS`',
            RuntimeWarning,
            stacklevel=4,  # the line that imports mobileone_mm
        )


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
