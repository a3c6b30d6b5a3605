"""Merging ``--cfg-options`` into a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.config.config import DELETE_KEY


def merge_options(config: Config, options: Mapping[str, Any]) -> None:
    """Merge overrides by dotted key into a config, in place.

    As mmengine does, but ``_delete_=True`` also empties an item of a list: mmengine honours it in
    dicts alone, so a transform in the middle of a pipeline cannot be replaced by another one
    (``pipeline.2._delete_=True pipeline.2.type=RandomFlip``).

    Raises:
        KeyError, TypeError, ValueError: A key does not fit the config.
    """
    rest = copy.deepcopy(dict(options))  # mmengine takes `_delete_` out of what it merges
    for name in list(rest):
        *path, last = name.split('.')
        if last != DELETE_KEY or not path or not path[-1].isdigit():
            continue
        if rest.pop(name):
            _empty_item(config, path)
    config.merge_from_dict(rest)


def _empty_item(config: Config, path: list[str]) -> None:
    node: Any = config._cfg_dict
    for key in path[:-1]:
        node = node[int(key)] if isinstance(node, (list, tuple)) else node[key]
    if not isinstance(node, list) or int(path[-1]) >= len(node):
        raise KeyError(f'{".".join(path)} is no item of a list in the config')
    node[int(path[-1])] = {}
