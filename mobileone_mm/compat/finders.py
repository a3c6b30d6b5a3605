"""An import finder that acts when ``torchvision``, ``mmcv._ext`` or mmpretrain is first imported."""

import ast
import copy
import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

#: The message of torchvision's import error if its compiled library cannot be loaded.
_NO_OPS = 'operator torchvision::nms does not exist'
_MARK = '__mobileone_mm_stand_in__'
#: The file of mmpretrain that turns a failed import into ``TypeError: NoneType takes no arguments``.
_BLIP = 'models/multimodal/blip/language_model.py'


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
        # The operators exist as long as this object.
        library = importlib.import_module('.ops.nms', __package__).declare_for_torchvision()
        loader.exec_module(module)
        # torchvision's `ops.nms` checks for the compiled library, and so never reaches the operator.
        # The other files of operators, such as `roi_align`, still say what they miss.
        module.ops.boxes._assert_has_ops = lambda: None
        setattr(module, _MARK, library)


def _run_dependency(loader: Loader, module: ModuleType) -> None:
    """Import mmpretrain's list of optional dependencies and correct it."""
    loader.exec_module(module)
    without_multimodal_models(module)


def without_multimodal_models(dependency: ModuleType) -> None:
    """Set ``WITH_MULTIMODAL`` to False if the names that mmpretrain's BLIP imports are missing.

    mmpretrain then registers placeholders for these models, as it does without transformers.
    OneDL's release needs transformers below 5, the original release needs an early version 4.
    ``dependency`` is the module ``mmpretrain.utils.dependency``.
    """
    file = Path(str(dependency.__file__)).parents[1] / _BLIP
    # A release without BLIP has no such fault.
    if not getattr(dependency, 'WITH_MULTIMODAL', False) or not file.is_file():
        return
    nodes = ast.walk(ast.parse(file.read_text(encoding='utf-8')))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    own = [node for node in imports if str(node.module).startswith('transformers.')]
    try:
        exec(compile(ast.Module([*own], []), str(file), 'exec'), {})
    except ImportError:
        vars(dependency)['WITH_MULTIMODAL'] = False


_RUN = {'torchvision': _run_torchvision, 'mmpretrain.utils.dependency': _run_dependency}


class Finder(MetaPathFinder, Loader):
    """Finds what the import system would find without it, and executes some modules itself.

    It must come first on ``sys.meta_path``. It loads the stand-in for ``mmcv._ext`` if no finder
    finds a compiled one. If a compiled ``_ext`` exists but its import fails, that error reaches the
    user.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of the three modules, else None."""
        if fullname != 'mmcv._ext' and fullname not in _RUN:
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
        found = (f.find_spec(fullname, path, target) for f in others if hasattr(f, 'find_spec'))
        spec = next(filter(None, found), None)
        if fullname == 'mmcv._ext':
            return spec or spec_from_loader(fullname, self, origin='mobileone_mm.compat')
        if spec is not None and spec.loader is not None:
            real, spec.loader = spec.loader, copy.copy(spec.loader)  # others may share a loader
            vars(spec.loader)['exec_module'] = functools.partial(_RUN[fullname], real)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Make the stand-in: the operators of this package, and an error for every other one."""
        stand_in = importlib.import_module('.mmcv_ext', __package__)
        vars(module).update(
            stand_in.OPERATORS, __getattr__=stand_in.missing, __doc__=stand_in.__doc__
        )
        setattr(module, _MARK, True)
