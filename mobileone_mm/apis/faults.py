"""One line for what goes wrong while something is built from a config."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from ..errors import InputError
from .cli import one_line
from .spelling import mistyped
from .strict import named_arguments

# The errors by which constructors refuse their arguments; hosts use assert for that. Anything else
# that a constructor raises is a fault of the program and keeps its traceback.
REFUSALS = (TypeError, ValueError, KeyError, AssertionError, FileNotFoundError, NotImplementedError)

_UNEXPECTED = re.compile(r"(?:(\w+)\.)?__init__\(\) got an unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)$")
_UNREGISTERED = re.compile(r'^\'?"?(\S+) is not in the (\S+) registry')


@contextmanager
def config_faults(cfg: Config) -> Iterator[None]:
    """Within it, a refusal while something is built from the config becomes a line with its path.

    Raises:
        InputError: Instead of what a constructor raised about its arguments.
    """
    try:
        yield
    except InputError:
        raise
    except REFUSALS as error:
        frame = _build_frame(error)
        if frame is None:
            raise
        raise InputError(_describe(cfg, frame, error)) from error


def _build_frame(error: BaseException) -> FrameType | None:
    """The innermost call of the registry that was building when the error was raised."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == 'build_from_cfg' and isinstance(
            trace.tb_frame.f_locals.get('cfg'), Mapping
        ):
            found = trace.tb_frame
        trace = trace.tb_next
    return found


def _describe(cfg: Config, frame: FrameType, error: BaseException) -> str:
    node = frame.f_locals['cfg']
    cls = frame.f_locals.get('obj_cls')
    text = one_line(error)
    unexpected, missing = _UNEXPECTED.search(text), _MISSING.search(text)
    kind = getattr(cls, '__name__', node.get('type'))
    if cls is None and (found := _UNREGISTERED.search(text)):
        path = path_of(cfg, node) or 'config'
        return f"{path}.type: '{found[1]}' is not known{_meant(found[1], frame)} ({found[2]} registry)"
    if unexpected:
        key = unexpected[2]
        path = _path_of_key(cfg, node, key)
        known = named_arguments(cls) if inspect.isclass(cls) and key in node else set()
        near = mistyped(key, known)
        hint = f"; did you mean '{near}'?" if near else ''
        return f"{path}: {unexpected[1] or kind} has no argument '{key}'{hint}"
    path = path_of(cfg, node) or 'config'
    if missing:
        return f'{path}: {kind} needs the argument {missing[1]}'
    if isinstance(error, FileNotFoundError):
        return f'{path}: {kind}: no such file: {error.filename or text}'
    return f'{path}: {kind}: {text or type(error).__name__}'


def _meant(name: str, frame: FrameType) -> str:
    names: set[str] = set()
    registry = frame.f_locals.get('registry')
    while isinstance(registry, Registry):
        names |= set(registry.module_dict)
        for scope, child in registry.children.items():
            names |= {f'{scope}.{key}' for key in child.module_dict}
        registry = registry.parent
    near = mistyped(name, names)
    return f"; did you mean '{near}'?" if near else ''


def path_of(cfg: Config, node: Mapping) -> str | None:
    """Dotted path of a dict in a config; None if it is not there.

    Hosts add keys before they build (a detector hands ``train_cfg`` to its head), so a dict whose
    entries are all in ``node`` counts, the largest such first.
    """
    best, size = None, -1
    for path, other in _dicts(cfg._cfg_dict, ''):
        if other.get('type') == node.get('type') and size < len(other) and _within(other, node):
            best, size = path, len(other)
    return best


def _within(part: Mapping, whole: Mapping) -> bool:
    if 'type' not in part:
        return False
    return all(
        key in whole and (isinstance(value, (Mapping, list, tuple)) or whole[key] == value)
        for key, value in part.items()
    )


def _path_of_key(cfg: Config, node: Mapping, key: str) -> str:
    path = path_of(cfg, node)
    if path is None or key in node:
        return path or 'config'
    # The argument may stand in a part that the constructor hands on, such as norm_cfg.
    inner = [inside for inside, part in _dicts(node, path) if key in part]
    return inner[0] if inner else path


def _dicts(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        yield path or 'config', node
        for key, value in node.items():
            yield from _dicts(value, f'{path}.{key}' if path else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _dicts(value, f'{path}.{index}')
