"""Walk over configs: dicts with their paths, datasets inside wrappers, classes behind types."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import mmengine.registry
from mmengine.registry import DefaultScope, Registry

_ROOTS = [found for found in vars(mmengine.registry).values() if isinstance(found, Registry)]


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield every dict of a config with its dotted path, outer dicts first.

    A dict may be changed as soon as it is yielded; its new content is walked next.
    """
    if isinstance(node, Mapping):
        yield path, node
    for key, value in items_of(node):
        yield from walk(value, _join(path, key))


def flatten(node: Any, path: str = '', whole_lists: bool = False) -> dict[str, Any]:
    """Map the dotted path of every value that is not a filled dict, list or tuple to the value.

    With ``whole_lists``, a list without dicts and lists in it is one value.
    """
    items = items_of(node)
    plain = not isinstance(node, Mapping) and not any(items_of(value) for _, value in items)
    if not items or (whole_lists and plain):
        return {path: node}
    found: dict[str, Any] = {}
    for key, value in items:
        found.update(flatten(value, _join(path, key), whole_lists))
    return found


def datasets(cfg: Mapping, loader: str) -> Iterator[tuple[str, Any]]:
    """Yield the datasets of a loader with their paths; of wrappers, the datasets inside."""
    yield from _leaves(mapping(cfg.get(loader)).get('dataset'), f'{loader}.dataset')


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get('dataset'), Mapping):
        yield from _leaves(node['dataset'], f'{path}.dataset')
    elif isinstance(node.get('datasets'), (list, tuple)):
        for index, inner in enumerate(node['datasets']):
            yield from _leaves(inner, f'{path}.datasets.{index}')
    else:
        yield path, node


def mapping(node: Any) -> Mapping:
    """Return a dict as it is, and an empty one for anything else."""
    return node if isinstance(node, Mapping) else {}


def type_name(node: Any) -> str:
    """Return the ``type`` of a dict as a string, with its scope; the class name if it is a class."""
    kind = mapping(node).get('type', '')
    return kind if isinstance(kind, str) else getattr(kind, '__name__', '')


def class_of(node: Any, scope: str | None = None) -> type | None:
    """Return the class that the ``type`` of a dict names, from whichever registry has it, or None.

    ``scope`` is the default scope of the config; None stands for that of the process.
    """
    kind = mapping(node).get('type')
    if not isinstance(kind, str):
        return kind if inspect.isclass(kind) else None
    default = DefaultScope.get_current_instance()
    scope = scope or (default.scope_name if default else 'mmengine')
    with suppress(ImportError):  # its registries become children of the roots
        import_module(f'{scope}.registry')
    for root in _ROOTS:
        try:
            # Hosts lack some registries. `switch_scope_and_registry` would warn of each.
            found = root.children.get(scope, root).get(kind)
        except (ImportError, KeyError):  # the host of the type is not installed
            continue
        if inspect.isclass(found):
            return found
    return None


def arguments_of(cls: type) -> set[str]:
    """Return the names of the arguments that a class and its base classes spell out."""
    inits = (vars(base).get('__init__') for base in inspect.getmro(cls))
    return {
        parameter.name
        for init in filter(inspect.isfunction, inits)
        for parameter in inspect.signature(init).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    } - {'self'}


def takes_argument(cls: type, name: str) -> bool:
    """Return whether a class has an argument, or passes it on to a base class that has it."""
    for base in inspect.getmro(cls):
        init = vars(base).get('__init__')
        if inspect.isfunction(init):
            parameters = inspect.signature(init).parameters
            if name in parameters:
                return True
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return False
    return False


def items_of(node: Any) -> list[tuple[Any, Any]]:
    """Return keys and values of a dict, or places and items of a list; nothing for a single value."""
    if isinstance(node, Mapping):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, (list, tuple)) else []


def _join(path: str, key: Any) -> str:
    return f'{path}.{key}' if path else str(key)
