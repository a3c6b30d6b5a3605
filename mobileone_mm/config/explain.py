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

from ..errors import InputError, one_line
from .keys import named_arguments
from .spelling import mistyped

# The errors by which constructors refuse their arguments; hosts use assert for that. Anything else
# that a constructor raises is a fault of the program and keeps its traceback.
REFUSALS = (TypeError, ValueError, KeyError, AssertionError, FileNotFoundError, NotImplementedError)

_UNEXPECTED = re.compile(r"(?:(\w+)\.)?__init__\(\) got an unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r'missing \d+ required (?:positional|keyword-only) arguments?: (.*)$')
_PREFIX = re.compile(r'^(\S+) is not in the pretrained model')  # mmengine's assert
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
        if found := _PREFIX.match(one_line(error)):
            raise InputError(
                f"init_cfg: prefix: got '{found[1]}', with which no key of the checkpoint begins; "
                "'backbone' fits the files of classifiers, or leave it out"
            ) from error
        if frame is None:
            raise
        raise InputError(_describe(cfg, frame, error)) from error


def _build_frame(error: BaseException | None) -> FrameType | None:
    """The innermost call of the registry that was building when the error was raised."""
    found = None
    trace = error.__traceback__ if error else None
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == 'build_from_cfg' and isinstance(
            trace.tb_frame.f_locals.get('cfg'), Mapping
        ):
            found = trace.tb_frame
        trace = trace.tb_next
    if found is None and error is not None:
        # mmengine raises the errors of hooks anew, which leaves the origin in the context.
        return _build_frame(error.__context__)
    return found


def _describe(cfg: Config, frame: FrameType, error: BaseException) -> str:
    node = frame.f_locals['cfg']
    cls = frame.f_locals.get('obj_cls')
    text = one_line(error)
    unexpected, missing = _UNEXPECTED.search(text), _MISSING.search(text)
    kind = getattr(cls, '__name__', node.get('type'))
    if cls is None and (found := _UNREGISTERED.search(text)):
        path = path_of(cfg, node) or 'config'
        return (
            f"{path}.type: '{found[1]}' is not known{_meant(found[1], frame)} ({found[2]} registry)"
        )
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
    """Dotted path of a dict in a config: the one of its type that agrees with it most.

    Hosts add keys before they build (a detector hands ``train_cfg`` to its head) and take others
    away (an optimizer wrapper loses its optimizer), so that no dict need be equal. None if the
    config has none of this type.
    """
    best, most = None, -1
    for path, other in _dicts(cfg._cfg_dict, ''):
        if 'type' in other and other['type'] == node.get('type'):
            same = sum(key in other and other[key] == value for key, value in node.items())
            if same > most:
                best, most = path, same
    return best


def _path_of_key(cfg: Config, node: Mapping, key: str) -> str:
    path = path_of(cfg, node)
    if path is not None and key in node:
        return path
    # The argument may stand in a part that the constructor hands on, such as norm_cfg, or in the
    # config of what builds this node, such as a hook.
    start = (node, path) if path is not None else (cfg._cfg_dict, '')
    inner = [inside for inside, part in _dicts(*start) if key in part]
    return inner[0] if inner else path or 'config'


def _dicts(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        yield path or 'config', node
        for key, value in node.items():
            yield from _dicts(value, f'{path}.{key}' if path else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _dicts(value, f'{path}.{index}')
