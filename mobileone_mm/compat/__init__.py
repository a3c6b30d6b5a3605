"""Supply what the hosts lack on this machine, and only where it is missing.

Three imports fail there: PyPI's torchvision beside a CPU build of torch; ``mmcv._ext``, which pip does
not build and ``mmdet.models`` imports; and, with transformers 5, mmpretrain's multimodal models.
:func:`install` puts a finder on ``sys.meta_path`` that acts when one of these modules is
imported. Nothing is imported before that. A compiled module always wins. Without a fault nothing is
printed.
"""

import importlib
import sys
import threading
import warnings
from types import ModuleType
from typing import Any

from .finders import Finder, is_stand_in, without_multimodal_models
from .processes import prepare_children

__all__ = ['install', 'status']

_LOCK = threading.Lock()
_HOSTS = ('mmdet', 'mmseg', 'mmpretrain')
#: If an import from mmcv.ops fails, OneDL's hosts define a function or class with this message.
_PLACEHOLDER = 'requires mmcv to be compiled with ops'


def install() -> None:
    """Make the stand-ins available to every later import; a second call does nothing.

    Warns, in one line, if a host was imported before and has replaced operators by placeholders.
    Other modules hold copies of these placeholders, so they cannot be replaced any more.
    """
    with _LOCK:
        if any(isinstance(finder, Finder) for finder in sys.meta_path):
            return
        sys.meta_path.insert(0, Finder())
        prepare_children()
        complete_imported()
    if found := placeholders():
        warnings.warn(
            f'imported before mobileone_mm, the hosts have replaced {", ".join(found)} of mmcv by '
            'placeholders that only raise: import mobileone_mm first, or run the script as '
            '`python -m mobileone_mm.compat SCRIPT ARGS`',
            RuntimeWarning,
            stacklevel=3,  # the line that imports mobileone_mm
        )


def status() -> dict[str, str]:
    """Return whether ``torchvision`` and ``mmcv._ext`` are native; imports both to find out.

    The others are ``'stand-in'``, ``'absent'`` (the package is not installed) or ``'broken'`` (its
    import fails).
    """
    found = {}
    for name in ('torchvision', 'mmcv._ext'):
        try:
            module = importlib.import_module(name)
            found[name] = 'stand-in' if is_stand_in(module) else 'native'
        except ModuleNotFoundError:
            found[name] = 'absent'
        except Exception:  # of any kind: the import runs code of others
            found[name] = 'broken'
    return found


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
