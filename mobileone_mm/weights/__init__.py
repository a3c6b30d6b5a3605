"""Weights in and out: safe reading, key tables, loading with a check, atomic writing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fit import check_matches, load_weights
    from .names import form_of, looks_like_mobileone, to_mmpretrain
    from .reading import read_checkpoint, state_dict_of

_LAZY = {
    'check_matches': 'fit',
    'form_of': 'names',
    'load_weights': 'fit',
    'looks_like_mobileone': 'names',
    'read_checkpoint': 'reading',
    'state_dict_of': 'reading',
    'to_mmpretrain': 'names',
}
__all__ = [
    'check_matches',
    'form_of',
    'load_weights',
    'looks_like_mobileone',
    'read_checkpoint',
    'state_dict_of',
    'to_mmpretrain',
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f'.{_LAZY[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
