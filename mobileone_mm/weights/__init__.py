"""Weights in and out: safe reading, key tables, one loader with a check, conversion."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fit import checkpoint_for, load_weights
    from .unwrap import read_weights

_LAZY = {'checkpoint_for': 'fit', 'load_weights': 'fit', 'read_weights': 'unwrap'}
__all__ = ['checkpoint_for', 'load_weights', 'read_weights']


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f'.{_LAZY[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
