"""The config of a deploy pair: one file, no bases, nothing of the machine that wrote it."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import nn

from ..config.read import load_config as read_config
from ..config.tree import walk
from ..errors import InputError
from ..models import MobileOne

#: where a setting stands below ``model``
Place: TypeAlias = tuple[str | int, ...]
#: settings of one run on one machine
RUN_KEYS = ('changes', 'channels_last', 'load_from', 'resume', 'work_dir', 'launcher')
_ENVIRONMENT = re.compile(r'\{\{[\'"]?\s*\$(\w+)\s*:\s*(\S*?)\s*[\'"]?\}\}')


def load_config(path: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, merge options into it and replace a distilling model by its student.

    Raises:
        InputError: The file is no config or cannot be read.
    """
    return student_form(read_config(Path(path), options))


def student_form(config: Config) -> Config:
    """A config with the plain student in the place of a model that learns from teachers.

    Such a model's class says so by a static method ``student_config``; its state dict is the
    student's. Stored views in pipelines become the transforms that they are made by. Any other config
    comes back as it is.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    plain = getattr(class_of(config.model.get('type')), 'student_config', None)
    if plain is None:
        return config
    content = {**config.to_dict(), 'model': plain(config.model.to_dict())}
    return Config(_without_stored_views(content), cfg_text=config.text, filename=config.filename)


def _without_stored_views(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_stored_views(value) for key, value in node.items()}
    if not isinstance(node, (list, tuple)):
        return node
    items: list[Any] = []
    for item in node:
        if isinstance(item, dict) and str(item.get('type')).endswith('.StoredView'):
            items += item['transforms']
        elif item != 'teacher_view':  # what the packing takes along for the classifier
            items.append(_without_stored_views(item))
    return items if isinstance(node, list) else tuple(items)


def build_model(config: Config) -> nn.Module:
    """Build the model of a config in the config's own scope, as the Runner does.

    Raises:
        InputError: The model cannot be built.
    """
    # An earlier scope of this process must not decide where names are looked up.
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = copy.deepcopy(config.model)
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    try:
        return ROOT_MODELS.build(model)
    except Exception as error:  # constructors of any host raise anything
        raise InputError(
            f'config: its model cannot be built ({type(error).__name__}: {_line(error)})'
        ) from error


def deploy_config_text(
    config: Config,
    path: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    without: Sequence[Place] = (),
) -> str:
    """Text of the deploy form of a config.

    Every MobileOne in the model gets ``deploy=True`` and loses its initialisation, as do all parts
    that started from a pretrained file: the weights are in the checkpoint of the pair. A teacher
    that stands in a file of its own is written into the text. What the config took from the
    environment (``{{$COCO_ROOT:data/coco}}``) is taken from there again, so that data roots are those
    of the machine that uses the pair.

    Args:
        config: As :func:`load_config` gave it.
        path: The file that it came from.
        options: What was merged into it.
        without: Settings of the model that become None, such as the ``norm_cfg`` of a part whose BN
            is folded.
    """
    text = deploy_form(config, without).dump()
    names = dict(_ENVIRONMENT.findall(config.text))
    tokens = {name: f'__environment_{name}__' for name in names}
    portable = _dump_with(tokens, path, options, without)
    if portable is None:
        # A variable that chooses a file or a number cannot be a token; keep what it chose.
        tokens = {
            n: t
            for n, t in tokens.items()
            if _dump_with({n: t}, path, options, without) is not None
        }
        portable = _dump_with(tokens, path, options, without)
    if portable is None:
        return text
    for name, token in tokens.items():
        portable = portable.replace(token, f'{{{{${name}:{names[name]}}}}}')
    return portable


def parse_config_text(text: str) -> Config:
    """The config of a text, with environment variables put in."""
    return Config.fromstring(text, '.py')


def absolute_paths(text: str) -> list[str]:
    """Absolute paths that the author of a config wrote into it."""
    found = re.findall(r"'((?:/|~/|[A-Za-z]:[\\/])[^'\n]*)'", text)
    return sorted({path for path in found if len(path) > 1})


def deploy_form(config: Config, without: Sequence[Place] = ()) -> Config:
    """The config of the deploy form, with some settings of the model set to None."""
    init_default_scope(config.get('default_scope') or 'mmengine')
    content = copy.deepcopy(config.to_dict())
    for key in RUN_KEYS:
        content.pop(key, None)
    for _, node in walk(content):
        if node.get('persistent_workers') and not node.get('num_workers'):
            node['persistent_workers'] = False  # torch refuses it without workers
    _switch(content['model'])
    for place in without:
        node = content['model']
        for part in place[:-1]:
            node = node[part]
        node[place[-1]] = None
    imports = content.setdefault('custom_imports', dict(imports=[], allow_failed_imports=False))
    given = imports['imports']
    names = [given] if isinstance(given, str) else list(given)
    if 'mobileone_mm' not in names:
        # First: it puts stand-ins for missing compiled operators in place.
        imports['imports'] = ['mobileone_mm', *names]
    return Config(content)


def _switch(node: Any) -> None:
    if isinstance(node, dict):
        if is_mobileone(node.get('type')):
            node['deploy'] = True
            node.pop('init_cfg', None)
        elif _is_pretrained(node.get('init_cfg')):
            del node['init_cfg']
        if isinstance(node.get('pretrained'), str):
            del node['pretrained']
        if 'teacher_config' in node:
            node['teacher_config'] = _teacher(node['teacher_config'])
            node['teacher_ckpt'] = None  # a path of this machine; only training needs it
        for value in node.values():
            _switch(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _switch(value)


def is_mobileone(kind: Any) -> bool:
    """Whether a ``type`` of a config is our backbone."""
    kind = class_of(kind)
    return kind is not None and issubclass(kind, MobileOne)


def class_of(kind: Any) -> type | None:
    """The class that a ``type`` of a config names in the current scope."""
    if isinstance(kind, str):
        try:
            with ROOT_MODELS.switch_scope_and_registry(None) as registry:
                kind = registry.get(kind)
        except (KeyError, ImportError):
            return None
    return kind if inspect.isclass(kind) else None


def _teacher(given: Any) -> dict[str, Any]:
    """The model of a teacher's config: mmdet takes a dict, a path, or a path in its own package."""
    if not isinstance(given, (str, Path)):
        return dict(given)
    path = Path(given)
    if not path.is_file():
        from mmengine.utils import get_installed_path

        path = Path(get_installed_path('mmdet')).parent / path
    return {'model': load_config(path).to_dict()['model']}


def _is_pretrained(init_cfg: Any) -> bool:
    if isinstance(init_cfg, (list, tuple)):
        return any(_is_pretrained(item) for item in init_cfg)
    return isinstance(init_cfg, dict) and str(init_cfg.get('type')).endswith('Pretrained')


def _dump_with(
    variables: Mapping[str, str],
    path: str | os.PathLike[str],
    options: Mapping[str, Any] | None,
    without: Sequence[Place],
) -> str | None:
    """The deploy text of the config when it is read with these environment variables, if it can be."""
    try:
        with _environment(variables):
            text = deploy_form(load_config(path, options), without).dump()
    except Exception:  # the config does not load with them; the caller has another way
        return None
    return text


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    # mmengine tells the user of each variable that it put in; these are not the user's.
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _line(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return ' '.join(str(text).split())[:200]
