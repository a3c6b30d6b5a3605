"""Supply what the hosts lack on this machine, and only where it is missing.

Three imports fail there:

- PyPI's torchvision needs CUDA libraries. Beside a CPU build of torch its import ends with
  ``operator torchvision::nms does not exist``.
- pip builds mmcv without ``mmcv._ext``, which ``mmdet.models`` and ``mmcv.ops`` import.
- transformers 5 has no longer the names that mmpretrain's multimodal models import.

:func:`install` puts finders on ``sys.meta_path`` that act when one of these modules is imported.
Nothing is imported before that. A compiled module always wins. Without a fault nothing is printed.

Scripts that import a host before they read a config run as
``python -m mobileone_mm.compat SCRIPT ARGS``.
"""

from __future__ import annotations

import importlib
import threading

from . import finders, late, processes

__all__ = ['install', 'status']

_LOCK = threading.Lock()


def install() -> None:
    """Make the stand-ins available to every later import; a second call does nothing.

    Warns, in one line, if a host was imported before and has replaced operators by placeholders.
    Other modules hold copies of these placeholders, so they cannot be replaced any more.
    """
    with _LOCK:
        if finders.installed():
            return
        late.forget_failed('torchvision', 'mmcv.ops')
        finders.install()
        processes.prepare_children()
        late.complete_mmcv()
    late.warn_of_placeholders()


def status() -> dict[str, str]:
    """Return whether ``torchvision`` and ``mmcv._ext`` are native; imports both to find out.

    Returns:
        Module name -> ``'native'``, ``'stand-in'``, ``'absent'`` (the package is not installed) or
        ``'broken'`` (its import fails).
    """
    return {name: _status_of(name) for name in ('torchvision', 'mmcv._ext')}


def _status_of(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return 'absent'
    except Exception:  # of any kind: the import runs code of others
        return 'broken'
    return 'stand-in' if finders.is_stand_in(module) else 'native'
