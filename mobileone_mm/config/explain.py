"""One line for what goes wrong while something is built from a config."""

import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from ..errors import InputError, one_line
from ..faults import file_of, in_user_code, is_named
from ..files import REASONS
from .spelling import did_you_mean, mistyped
from .tree import arguments_of, flatten, walk

# The errors by which constructors refuse their arguments; the hosts also use assert. Any other error
# of a constructor is a fault of the program and keeps its traceback.
REFUSALS = (TypeError, ValueError, KeyError, AssertionError, FileNotFoundError, NotImplementedError)

_UNEXPECTED = re.compile(r"(?:(\w+)\.)?__init__\(\) got an unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r'missing \d+ required (?:positional|keyword-only) arguments?: (.*)$')
_FIRST_WORD = re.compile(r'\W*(\w+)(?!\w*:)')
_UNREGISTERED = re.compile(r'^\'?"?(\S+) is not in the (.+?) registry')


class _Call(NamedTuple):
    """A call that builds something from a dict, and the error that ended it."""

    node: Mapping
    cls: Any
    registry: Registry | None
    error: BaseException


@contextmanager
def config_faults(cfg: Config, built: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn a refusal while something is built from the config into one line with its path.

    ``built`` says whether everything is built. From then on only the refusal of a dict that is in
    the config becomes a line, such as a pipeline that a hook builds at a later epoch. An error in the
    code of the user keeps its traceback, except if an argument or a file of the config is missing.
    """
    try:
        yield
    except InputError:
        raise
    except (*REFUSALS, OSError) as error:
        if isinstance(error, OSError) and in_user_code(error):
            number, name = file_of(error)
            for path, value in flatten(cfg._cfg_dict).items():
                if number in REASONS and is_named(name, value):
                    raise InputError(f"{path}: '{name}': {REASONS[number]}") from error
        call = _innermost_call(error) if isinstance(error, REFUSALS) else None
        if call is None or (built() and call.node not in [n for _, n in walk(cfg._cfg_dict)]):
            raise
        unexpected = _UNEXPECTED.search(str(call.error))
        if in_user_code(call.error) and not (unexpected and unexpected[2] in call.node):
            raise
        raise InputError(_describe(cfg, call, error)) from error


def _innermost_call(error: BaseException | None) -> _Call | None:
    """Return the innermost call that was building from a dict when the error was raised."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__ if error else None):
        name = {'build_from_cfg': 'cfg', 'build_dataloader': 'dataloader'}.get(frame.f_code.co_name)
        values = frame.f_locals
        if error and name and isinstance(values.get(name), Mapping):
            cls = DataLoader if name == 'dataloader' else values.get('obj_cls')
            found = _Call(values[name], cls, values.get('registry'), error)
    if found is None and error is not None:
        # mmengine raises the errors of hooks again; the first error is in the context.
        return _innermost_call(error.__context__)
    return found


def _describe(cfg: Config, call: _Call, error: BaseException) -> str:
    node, cls = call.node, call.cls
    text = one_line(error)
    if isinstance(error, AssertionError) and not error.args:
        code = (traceback.extract_tb(error.__traceback__)[-1].line or '').removeprefix('assert ')
        text = f'expected {code}' if code else text
    kind = getattr(cls, '__name__', node.get('type'))
    path = _path_of(cfg, node)
    if cls is None and (found := _UNREGISTERED.search(text)):
        hint = did_you_mean(found[1], _registered(call.registry), listed=False)
        return f"{path or 'config'}.type: '{found[1]}' is unknown{hint} ({found[2]} registry)"
    if cls is None and 'type' not in node:
        near = mistyped('type', map(str, node))
        return f"{path or 'config'}: has no 'type'" + (f"; rename '{near}'" if near else '')
    if unexpected := _UNEXPECTED.search(text):
        name, key = unexpected.groups()
        known = arguments_of(cls) if inspect.isclass(cls) and key in node else set()
        where = _path_of_key(cfg, node, path, key)
        hint = did_you_mean(key, known, listed=False)
        return f"{where}: {name or kind} has no argument '{key}'{hint}"
    path = path or 'config'
    if missing := _MISSING.search(text):
        return f'{path}: {kind} needs the argument {missing[1]}'
    if isinstance(error, FileNotFoundError):
        return f'{path}: {kind}: no such file: {error.filename or text}'
    # such as "momentum must be in range"
    first = _FIRST_WORD.match(text)
    if first and first[1] in node and path != 'config':
        path = f'{_path_of_key(cfg, node, path, first[1])}.{first[1]}'
    return f'{path}: {kind}: {text[:300]}'


def _registered(registry: Registry | None) -> set[str]:
    names: set[str] = set()
    while isinstance(registry, Registry):
        names |= set(registry.module_dict)
        for scope, child in registry.children.items():
            names |= {f'{scope}.{key}' for key in child.module_dict}
        registry = registry.parent
    return names


def _path_of(cfg: Config, node: Mapping) -> str | None:
    """Return the path of the dict in a config that has the same type and most values in common.

    Hosts add keys before they build (a detector passes ``train_cfg`` to its head) and remove others
    (an optimizer wrapper loses its optimizer), so that no dict need be equal. Some dicts have no type
    in the config: EMAHook passes its arguments on to an average, a classifier knows its preprocessor.
    """

    def shared(entry: tuple[str, Mapping]) -> int:
        same = (key in entry[1] and entry[1][key] == node[key] for key in node if key != 'type')
        return sum(same)

    entries = list(walk(cfg._cfg_dict))
    typed = [entry for entry in entries if entry[1].get('type') == node.get('type')]
    best = max(typed or entries, key=shared, default=None)
    return best[0] if best and (typed or shared(best)) else None


def _path_of_key(cfg: Config, node: Mapping, path: str | None, key: str) -> str:
    # The argument can be in a part that the constructor passes on, such as norm_cfg, or in the
    # config of what builds this node, such as a hook.
    start = (cfg._cfg_dict, '') if path is None else (node, path)
    return next((inside for inside, part in walk(*start) if key in part), path) or 'config'
