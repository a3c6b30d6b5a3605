"""Refuse an override of a config's variable, whose value stands in other places already."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import InputError, few
from .check import TOP_LEVEL_KEYS
from .tree import items_of, mapping

# Keys that are looked up only if the other one is missing. Many configs use them as variables.
_REPLACED = {
    'data_preprocessor': ('model', 'data_preprocessor'),
    'train_pipeline': ('train_dataloader', 'dataset'),
    'test_pipeline': ('test_dataloader', 'dataset'),
}
_SMALL = 16  # such numbers stand everywhere


def check_variable(cfg: Config, name: str, options: Mapping[str, Any]) -> None:
    """Refuse the override of a variable such as ``data_root``, which would change nothing.

    Python has put the value of a variable into the config when it ran the file, and an override comes
    later: nothing reads the variable itself. A key of the user's own, whose value stands nowhere else,
    stays allowed. The InputError names the first places. A small number may stand there by chance: a
    warning.
    """
    root, _, inside = name.partition('.')
    if _is_read(cfg, root) or (root not in cfg and root not in _REPLACED):
        return
    places, is_certain = _places(cfg, root, bool(inside))
    paths = [f'{place}.{inside}' if inside else place for place in places]
    left = [path for path in paths if not any(_covers(option, path) for option in options)]
    if left and not is_certain:
        text = (
            f"--cfg-options {name}: nothing reads '{root}' by this name; if it is a variable of the "
            f'file, the override changes nothing: its value {cfg[root]!r} stays in {few(left)}'
        )
        print_log(text, 'current', logging.WARNING)
    elif left:
        raise InputError(
            f"--cfg-options {name}: changes nothing, because '{root}' is a variable of the file, whose "
            f'value is in {few(left)}; set these, or change the file'
        )
    if not paths and root in _REPLACED:
        place = '.'.join(_REPLACED[root])
        raise InputError(f"--cfg-options {name}: nothing reads '{root}' beside {place}; set that")


def _is_read(cfg: Config, root: str) -> bool:
    outer, inner = _REPLACED.get(root, ('', ''))
    return root in TOP_LEVEL_KEYS and not mapping(cfg.get(outer)).get(inner)


def _covers(option: str, path: str) -> bool:
    return f'{path}.'.startswith(f'{option}.')


def _places(cfg: Config, root: str, whole: bool) -> tuple[list[str], bool]:
    """Return where the value of a variable stands, or (unless ``whole``) the start of a path is it.

    Also returns whether it does not stand there by chance, as small numbers may.
    """
    value = cfg.get(root)
    if value is None or isinstance(value, bool) or value in ('', (), [], {}):
        return [], True  # they stand elsewhere by chance
    found = [
        path
        for key in cfg
        if key != root and _is_read(cfg, key)
        for path, other in _nodes(cfg[key], key)
        if _same(value, other) or (not whole and _is_start(value, other))
    ]
    if isinstance(value, (int, float)):
        near = [path for path in found if path.rpartition('.')[2] in (root, *root.split('_'))]
        return near or found, bool(near) or abs(value) > _SMALL
    return found, True


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, node
    for key, inner in items_of(node):
        yield from _nodes(inner, f'{path}.{key}')


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return list(value) == list(other)
    return type(value) is type(other) and value == other


def _is_start(value: Any, other: Any) -> bool:
    both = isinstance(value, str) and isinstance(other, str)
    return both and other.startswith(value if value.endswith('/') else f'{value}/')
