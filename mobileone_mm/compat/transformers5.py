"""Switch mmpretrain's multimodal models off where transformers lacks what they import."""

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

#: The file of mmpretrain that turns a failed import into ``TypeError: NoneType takes no arguments``.
_BLIP = 'models/multimodal/blip/language_model.py'


def without_multimodal_models(dependency: ModuleType) -> None:
    """Set ``WITH_MULTIMODAL`` to False if the names that mmpretrain's BLIP imports are missing.

    mmpretrain then registers placeholders for these models, as it does without transformers.
    OneDL's release needs transformers below 5, the original release needs an early version 4.
    ``dependency`` is the module ``mmpretrain.utils.dependency``.
    """
    if getattr(dependency, 'WITH_MULTIMODAL', False) and not _complete(dependency):
        vars(dependency)['WITH_MULTIMODAL'] = False


def _complete(dependency: ModuleType) -> bool:
    file = Path(str(dependency.__file__)).parents[1] / _BLIP
    if not file.is_file():
        return True  # a release without BLIP has no such fault
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith('transformers.'):
            try:
                module = import_module(str(node.module))
            except ImportError:
                return False
            if not all(hasattr(module, alias.name) for alias in node.names):
                return False
    return True
