"""MobileOne (arXiv 2206.04040) for OpenMMLab: trains with branches, runs as plain convolutions.

Importing the package puts the stand-ins of :mod:`mobileone_mm.compat` in place and nothing else:
no host (mmpretrain, mmdet, mmseg, mmcv) is imported, and public names load on first use, so that
``custom_imports=dict(imports=['mobileone_mm'])`` costs a config next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import compat
from ._version import __version__

if TYPE_CHECKING:
    from .deploy.convert import convert_to_deploy
    from .models import MobileOne, NearIdentityInit
    from .reparam import reparameterize_model
    from .weights.fit import load_weights


__all__ = [
    'MobileOne',
    'NearIdentityInit',
    '__version__',
    'convert_to_deploy',
    'load_weights',
    'reparameterize_model',
]

_LAZY = {
    'MobileOne': 'models',
    'NearIdentityInit': 'models',
    'convert_to_deploy': 'deploy.convert',
    'load_weights': 'weights.fit',
    'reparameterize_model': 'reparam',
}

compat.install()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f'.{_LAZY[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
