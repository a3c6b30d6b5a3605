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

from . import late
from .finders import Finder, is_stand_in
from .processes import prepare_children

__all__ = ['install', 'status']

_LOCK = threading.Lock()


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
        late.complete_imported()
    if found := late.placeholders():
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
