"""Import finders that mend ``torchvision`` and ``mmcv._ext`` when they are first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

#: What torchvision's import ends with if its compiled part could not be loaded.
_NO_OPS = 'operator torchvision::nms does not exist'
_MARK = '__mobileone_mm_stand_in__'


def is_stand_in(module: ModuleType) -> bool:
    """Whether ``module`` runs on what this package put in."""
    return _MARK in vars(module)


class TorchvisionFinder(MetaPathFinder):
    """Hands out the real torchvision, with a loader that tries again if its operators miss.

    Must come first on ``sys.meta_path``. Where torchvision imports, the loader has done nothing.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of torchvision itself; None for anything else."""
        if fullname != 'torchvision':
            return None
        spec = _spec_of_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _SecondTry(spec.loader)
        return spec


class _SecondTry(Loader):
    """Runs torchvision's own loader, twice if the first run dies of missing operators."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._real.exec_module(module)
        except RuntimeError as error:
            if str(error) != _NO_OPS:
                raise
            self._mend(module)
        # From here on nothing but the real loader is seen.
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real

    def _mend(self, module: ModuleType) -> None:
        for name in [name for name in sys.modules if name.startswith('torchvision.')]:
            del sys.modules[name]
        for name in [name for name in vars(module) if not name.startswith('__')]:
            delattr(module, name)
        stand_in = importlib.import_module('.torchvision_ops', __package__)
        stand_in.declare()
        self._real.exec_module(module)
        stand_in.unlock(module)
        setattr(module, _MARK, True)


class ExtFinder(MetaPathFinder):
    """Hands out the stand-in for ``mmcv._ext`` if no other finder knows a compiled one.

    Must come last on ``sys.meta_path``; finders that were appended later are still asked first. A
    compiled ``_ext`` that is there but fails to import is left to fail: its message matters.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of ``mmcv._ext``; None for anything else."""
        if fullname != 'mmcv._ext':
            return None
        real = _spec_of_others(self, fullname, path, target)
        return real or spec_from_loader(fullname, _ExtLoader(), origin='mobileone_mm.compat')


class _ExtLoader(Loader):
    """Fills the module with the operators there are and an error for each of the others."""

    def create_module(self, spec: ModuleSpec) -> None:  # noqa: ARG002
        return None  # the import system makes an ordinary module

    def exec_module(self, module: ModuleType) -> None:
        stand_in = importlib.import_module('.mmcv_ext', __package__)
        vars(module).update(
            stand_in.OPERATORS, __getattr__=stand_in.missing, __doc__=stand_in.__doc__
        )
        setattr(module, _MARK, True)


def _spec_of_others(
    own: MetaPathFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """What the import system would find if ``own`` were not there."""
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, 'find_spec', None)
        if finder is own or isinstance(finder, type(own)) or find_spec is None:
            continue
        spec = find_spec(fullname, path, target)
        if spec is not None:
            return spec
    return None
