"""Reading a config with its command-line overrides, strictly."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MMLogger

from ..data.checks.loaders import ROOT_VARIABLES
from ..errors import InputError, one_line
from .keys import TOP_LEVEL_KEYS, check_keys
from .merge import merge_options
from .spelling import did_you_mean, mistyped
from .values import check_values

_VARIABLE = re.compile(r'env variable `(\w+)`')
SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def load_config(
    path: str | Path, options: Mapping[str, Any] | None = None, needs: Sequence[str] = ()
) -> Config:
    """Read a config, merge overrides into it and check its keys.

    Args:
        path: A file of one of mmengine's formats.
        options: What ``--cfg-options`` gave, by dotted key.
        needs: Top-level keys that it must have besides ``model``.

    Raises:
        InputError: It is no config, cannot be read, has a key that nothing would read or a number
            that cannot be.
    """
    cfg = _read(Path(path).expanduser())
    if options:
        check_options(cfg, options)
        _merge(cfg, options)
    check_keys(cfg, training='optim_wrapper' in needs)
    check_values(cfg)
    for key in ('model', *needs):
        if cfg.get(key) is None:
            raise InputError(f"config '{path}': has no '{key}'; is it a base file, or no config?")
        if key == 'model' and not (isinstance(cfg.model, Mapping) and 'type' in cfg.model):
            raise InputError(f"config '{path}': 'model' is no dict with a 'type'")
    return cfg


def _read(path: Path) -> Config:
    _know_mmseg()
    if os.name == 'nt':
        # mmengine puts the values into Python source, where a backslash means something else.
        for name in set(ROOT_VARIABLES.values()) & set(os.environ):
            os.environ[name] = os.environ[name].replace('\\', '/')
    if path.is_dir():
        raise InputError(f"config '{path}': is a folder; give a file in it")
    if not path.is_file():
        raise InputError(f"config '{path}': no such file; check the path")
    if path.suffix not in SUFFIXES:
        raise InputError(f"config '{path}': is no config; {', '.join(SUFFIXES)} files are")
    said = _SayOnce()
    logger = MMLogger.get_current_instance()
    logger.addFilter(said)
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is a program: anything can go wrong in it
        used = ''.join(f", {name}='{os.environ[name]}'" for name in said.variables())
        raise InputError(
            f"config '{path}': cannot be read ({type(error).__name__}: {one_line(error)[:300]})"
            + (f'; from the environment it took {used[2:]}' if used else '')
        ) from error
    finally:
        logger.removeFilter(said)


def _know_mmseg() -> None:
    """Let ``_base_ = 'mmseg::...'`` find mmseg under OneDL's name of the distribution.

    mmengine looks for a distribution mmsegmentation, and says that it is not installed.
    """
    try:
        metadata.distribution('mmsegmentation')
    except metadata.PackageNotFoundError:
        MODULE2PACKAGE['mmseg'] = 'mmseg'


class _SayOnce(logging.Filter):
    """Passes a message once: mmengine tells of a variable for each place in each base file."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[str, None] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._messages
        self._messages[message] = None
        return new

    def variables(self) -> list[str]:
        """Names of the environment variables that the config took."""
        found = _VARIABLE.findall(' '.join(self._messages))
        return [name for name in dict.fromkeys(found) if name in os.environ]


def _merge(cfg: Config, options: Mapping[str, Any]) -> None:
    try:
        merge_options(cfg, options)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f'--cfg-options: {one_line(error)}') from error


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Reject overrides of keys that the config does not have and that look mistyped.

    A key that is new at the end of its path may be an argument that the config leaves at its
    default; its constructor judges it. One that stands beside its correct spelling, or below
    something that is no dict or list, is an error: mmengine would add it in silence.

    Raises:
        InputError: Naming the override and what was probably meant.
    """
    for name in options:
        _check_option(cfg, name)


def _check_option(cfg: Config, name: str) -> None:
    node: Any = cfg._cfg_dict
    done: list[str] = []
    for key in name.split('.'):
        where = '.'.join(done) or 'the config'
        if isinstance(node, Mapping):
            if key not in node:
                _check_new_key(name, key, node, where, top=not done)
                return
            node = node[key]
        elif isinstance(node, (list, tuple)):
            if not key.isdigit() or int(key) >= len(node):
                raise InputError(
                    f"--cfg-options {name}: '{key}' is no index of {where}, which has {len(node)} "
                    'items, counted from 0'
                )
            node = node[int(key)]
        elif node is None:
            return
        else:
            raise InputError(f"--cfg-options {name}: {where} is {node!r}, it has no '{key}'")
        done.append(key)


def _check_new_key(name: str, key: str, node: Mapping, where: str, top: bool) -> None:
    known = {str(other) for other in node}
    if top and key in TOP_LEVEL_KEYS:
        return
    if top:
        known |= TOP_LEVEL_KEYS
        hint = did_you_mean(key, known) if mistyped(key, known) else ''
        raise InputError(f"--cfg-options {name}: {where} has no '{key}'{hint}")
    # `lr` beside `lr_mult` is no typing error, so only near names of other length classes count.
    near = mistyped(key, known - {'type'} if key == 'dtype' else known)  # of AmpOptimWrapper
    if near:
        raise InputError(f"--cfg-options {name}: {where} has no '{key}'; did you mean '{near}'?")
