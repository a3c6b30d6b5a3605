"""Read a config with its overrides from the command line, strictly."""

import copy
import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.config import DELETE_KEY
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MMLogger

from ..errors import InputError, one_line
from .check import TOP_LEVEL_KEYS, check_keys, check_values
from .options import UnbracketedList
from .spelling import did_you_mean, mistyped
from .tree import arguments_of, class_of, mapping
from .variables import check_variable

#: environment variables from which the configs take their data roots, by dataset class
ROOT_VARIABLES = {
    'CocoDataset': 'COCO_ROOT',
    'ImageNet': 'IMAGENET_ROOT',
    'PackedDataset': 'IMAGENET_ROOT',
    'PascalVOCDataset': 'VOC_ROOT',
    'ADE20KDataset': 'ADE_ROOT',
    'CustomDataset': 'FOLDER_ROOT',  # after ImageNet, which is a CustomDataset, too
}
_FILES = ('load_from', 'work_dir')  # settings of every run whose value is one path
SUFFIXES = ('.py', '.json', '.yaml', '.yml')
_VARIABLE = re.compile(r'env variable `(\w+)`')


def load_config(
    path: str | Path, options: Mapping[str, Any] | None = None, needs: Sequence[str] = ()
) -> Config:
    """Read a config, merge the overrides of ``--cfg-options`` into it, check its keys and numbers.

    ``needs`` are top-level keys that it must have besides ``model``.
    """
    cfg = _read(Path(path).expanduser())
    if options:
        given = {name: _check_option(cfg, name, options) for name in options}
        try:
            _merge(cfg, given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f'--cfg-options: {one_line(error)}') from error
    check_values(cfg)
    check_keys(cfg, training='optim_wrapper' in needs)
    if cfg.get('model') is not None and 'type' not in mapping(cfg.model):
        raise InputError(f"config '{path}': 'model' is not a dict with a 'type'")
    for key in ('model', *needs):
        if cfg.get(key) is None:
            raise InputError(f"config '{path}': has no '{key}'; give the config of a whole run")
    return cfg


def _read(path: Path) -> Config:
    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        # mmengine looks for this distribution at `_base_ = 'mmseg::...'`; OneDL's has another name.
        MODULE2PACKAGE['mmseg'] = 'mmseg'
    if os.name == 'nt':
        # mmengine puts the values into Python source, where a backslash begins an escape sequence.
        for name in set(ROOT_VARIABLES.values()) & set(os.environ):
            os.environ[name] = os.environ[name].replace('\\', '/')
    if path.is_dir():
        raise InputError(f"config '{path}': is a folder; give a file in it")
    if not path.is_file():
        raise InputError(f"config '{path}': no such file; check the path")
    if path.suffix not in SUFFIXES:
        raise InputError(f"config '{path}': is not a config ({', '.join(SUFFIXES)})")
    said: dict[str, logging.LogRecord] = {}

    def say_once(record: logging.LogRecord) -> bool:
        """Pass each message once: mmengine names a variable for each place in each base file."""
        return said.setdefault(record.getMessage(), record) is record

    logger = MMLogger.get_current_instance()
    logger.addFilter(say_once)
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is a program: any error can occur in it
        if hint := _import_hint(path, error):
            raise InputError(f"config '{path}': {hint}") from error
        named = dict.fromkeys(_VARIABLE.findall(' '.join(said)))
        used = ''.join(f", {name}='{os.environ[name]}'" for name in named if name in os.environ)
        raise InputError(
            f"config '{path}': cannot be read ({type(error).__name__}: {one_line(error)[:300]})"
            + (f'; it uses these environment variables: {used[2:]}' if used else '')
        ) from error
    finally:
        logger.removeFilter(say_once)


def _import_hint(path: Path, error: BaseException) -> str:
    """Return what to do about a module of ``custom_imports`` that Python does not find, or ''."""
    missing = error.__cause__ if isinstance(error, ImportError) else None
    while missing is not None and not isinstance(missing, ModuleNotFoundError):
        missing = missing.__cause__ or missing.__context__
    name = str(getattr(missing, 'name', None) or '')
    if not name:
        return ''
    top, folder, shown = name.partition('.')[0], path.absolute().parent, 'the folder that has it'
    if folder.joinpath(f'{top}.py').is_file() or folder.joinpath(top).is_dir():
        shown = f"'{folder}', the folder of the config,"
    return f"custom_imports: Python does not find the module '{name}'; add {shown} to PYTHONPATH"


def _merge(cfg: Config, options: Mapping[str, Any]) -> None:
    """Merge overrides as mmengine does; ``_delete_=True`` empties items of lists, too.

    mmengine deletes keys of dicts alone, so that a transform in the middle of a pipeline could not be
    replaced by another one (``pipeline.2._delete_=True pipeline.2.type=RandomFlip``).
    """
    rest = copy.deepcopy(dict(options))  # mmengine removes `_delete_` from what it merges
    for name in list(rest):
        *path, last = name.split('.')
        if last == DELETE_KEY and path and path[-1].isdecimal() and rest.pop(name):
            node: Any = cfg._cfg_dict
            for key in path[:-1]:
                node = node[int(key)] if isinstance(node, (list, tuple)) else node[key]
            if not isinstance(node, list) or int(path[-1]) >= len(node):
                raise KeyError(f'{".".join(path)} is not an item of a list in the config')
            node[int(path[-1])] = {}
    cfg.merge_from_dict(rest)


def _check_option(cfg: Config, name: str, options: Mapping[str, Any]) -> Any:
    """Return the value of an override; reject a key that is not in the config and looks mistyped.

    mmengine would add it without a message. The constructor checks other new keys.
    """
    check_variable(cfg, name, options)
    node: Any = cfg._cfg_dict
    done: list[str] = []
    for key in name.split('.'):
        where = '.'.join(done) or 'the config'
        if isinstance(node, Mapping):
            if key not in node:
                kind = options.get(f'{where}.type', node.get('type'))
                _check_new_key(cfg, name, key, {**node, 'type': kind}, where)
                return _value(name, options[name], None)
            node = node[key]
        elif isinstance(node, (list, tuple)):
            if not key.isdecimal() or int(key) >= len(node):
                raise InputError(
                    f"--cfg-options {name}: '{key}' is not an index of {where}, which has "
                    f'{len(node)} items, counted from 0'
                )
            node = node[int(key)]
        elif node is None:
            break
        else:
            raise InputError(f"--cfg-options {name}: {where} is {node!r}, it has no '{key}'")
        done.append(key)
    return _value(name, options[name], node)


def _value(name: str, value: Any, old: Any) -> Any:
    """Return the value that replaces another one; a path with a comma stays one string."""
    if isinstance(value, Mapping) and isinstance(old, (list, tuple)):
        if not all(str(key).isdecimal() for key in value):
            raise InputError(
                f'--cfg-options {name}: got a dict, but {name} is a list; give a list, such as '
                f'{name}="[dict(type=\'X\')]", or one item: {name}.0.KEY=VALUE'
            )
    elif isinstance(value, UnbracketedList):
        file = name in _FILES or Path(value.text).expanduser().exists()
        single = isinstance(old, str) or (old is None and file)
        return value.text if single and '/' in value.text else list(value)
    return value


def _check_new_key(cfg: Config, name: str, key: str, node: Mapping, where: str) -> None:
    known = {str(other) for other in node} - ({'type'} if key == 'dtype' else set())  # with --amp
    if where == 'the config':
        if key not in TOP_LEVEL_KEYS:
            hint = did_you_mean(key, known | TOP_LEVEL_KEYS, listed=False)
            raise InputError(f"--cfg-options {name}: {where} has no '{key}'{hint}")
        return
    near = mistyped(key, known)
    if near is None:
        return
    # A near name can be another argument, such as class_weight beside loss_weight.
    cls = class_of(node, cfg.get('default_scope'))
    if cls is None or key not in arguments_of(cls):
        raise InputError(f"--cfg-options {name}: {where} has no '{key}'; did you mean '{near}'?")
