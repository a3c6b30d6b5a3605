"""A trained model to a deploy pair: checkpoint and config of the fused model, with a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert import convert_to_deploy

__all__ = ['convert_to_deploy']


def __getattr__(name: str) -> Any:
    if name == 'convert_to_deploy':
        return import_module('.convert', __name__).convert_to_deploy
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
