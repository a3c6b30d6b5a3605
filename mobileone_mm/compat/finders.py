"""Import finders that act when ``torchvision``, ``mmcv._ext`` or mmpretrain is first imported."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

from .transformers5 import without_multimodal_models

#: The message of torchvision's import error if its compiled library cannot be loaded.
_NO_OPS = 'operator torchvision::nms does not exist'
_MARK = '__mobileone_mm_stand_in__'


def install() -> None:
    """Put the finders on ``sys.meta_path``."""
    sys.meta_path.insert(0, RepairFinder())
    sys.meta_path.append(ExtFinder())
    dependency = sys.modules.get('mmpretrain.utils.dependency')
    if dependency is not None:
        without_multimodal_models(dependency)


def installed() -> bool:
    """Return whether :func:`install` was called."""
    return any(isinstance(finder, ExtFinder) for finder in sys.meta_path)


def is_stand_in(module: ModuleType) -> bool:
    """Return whether ``module`` runs on operators of this package."""
    return _MARK in vars(module)


def _run_torchvision(loader: Loader, module: ModuleType) -> None:
    """Import torchvision; if its operators are missing, declare them and import it again."""
    try:
        loader.exec_module(module)
    except RuntimeError as error:
        if str(error) != _NO_OPS:
            raise
        for name in [name for name in sys.modules if name.startswith('torchvision.')]:
            del sys.modules[name]
        for name in [name for name in vars(module) if not name.startswith('__')]:
            delattr(module, name)
        stand_in = importlib.import_module('.torchvision_ops', __package__)
        stand_in.declare()
        loader.exec_module(module)
        stand_in.unlock(module)
        setattr(module, _MARK, True)


def _run_dependency(loader: Loader, module: ModuleType) -> None:
    """Import mmpretrain's list of optional dependencies and correct it."""
    loader.exec_module(module)
    without_multimodal_models(module)


class RepairFinder(MetaPathFinder):
    """Finds the real modules, and lets a function execute some of them.

    It must come first on ``sys.meta_path``.
    """

    _RUN = {'torchvision': _run_torchvision, 'mmpretrain.utils.dependency': _run_dependency}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that is repaired, else None."""
        spec = _real_spec(self, fullname, path, target) if fullname in self._RUN else None
        if spec is not None and spec.loader is not None:
            real, spec.loader = spec.loader, copy.copy(spec.loader)  # others may share a loader
            vars(spec.loader)['exec_module'] = functools.partial(self._RUN[fullname], real)
        return spec


class ExtFinder(MetaPathFinder, Loader):
    """Finds the stand-in for ``mmcv._ext`` if no other finder finds a compiled one, and loads it.

    It must come last on ``sys.meta_path``; it asks finders that were appended later first. If a
    compiled ``_ext`` exists but its import fails, that error reaches the user.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of ``mmcv._ext``, None for any other module."""
        if fullname != 'mmcv._ext':
            return None
        real = _real_spec(self, fullname, path, target)
        return real or spec_from_loader(fullname, self, origin='mobileone_mm.compat')

    def exec_module(self, module: ModuleType) -> None:
        """Add the operators of this package, and an error for every other operator."""
        stand_in = importlib.import_module('.mmcv_ext', __package__)
        vars(module).update(
            stand_in.OPERATORS, __getattr__=stand_in.missing, __doc__=stand_in.__doc__
        )
        setattr(module, _MARK, True)


def _real_spec(
    own: MetaPathFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """Return what the import system would find without ``own``."""
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, 'find_spec', None)
        if finder is own or isinstance(finder, type(own)) or find_spec is None:
            continue
        spec = find_spec(fullname, path, target)
        if spec is not None:
            return spec
    return None
