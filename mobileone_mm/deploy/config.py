"""The config of a deploy pair: one self-contained file without settings of one machine."""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope
from torch import nn

from ..config.explain import config_faults
from ..config.read import load_config
from ..config.tree import class_of, datasets, type_name, walk
from ..models import MobileOne

#: keys that lead from ``model`` to a setting
Place: TypeAlias = tuple[str | int, ...]
#: settings of one run on one machine
RUN_KEYS = ('changes', 'channels_last', 'load_from', 'resume', 'work_dir', 'launcher')
_ENVIRONMENT = re.compile(r'\{\{[\'"]?\s*\$(\w+)\s*:\s*(\S*?)\s*[\'"]?\}\}')


def student_form(config: Config) -> Config:
    """Return the config with the plain student instead of a model that learns from teachers.

    The class of such a model has a static method ``student_config``; its state dict is the student's.
    Stored views in pipelines become the transforms that they consist of. Any other config is returned
    unchanged.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    plain = getattr(class_of(config.model), 'student_config', None)
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
        if type_name(item).endswith('.StoredView'):
            items += item['transforms']
        elif item != 'teacher_view':  # a key that only the distilling classifier reads
            items.append(_without_stored_views(item))
    return type(node)(items)


def build_model(config: Config) -> nn.Module:
    """Build the model of a config in the config's own scope, as the Runner does.

    A refusal is an InputError with the path in the config.
    """
    # A scope that this process used before must not decide where names are looked up.
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = copy.deepcopy(config.model)  # some hosts change what they build from
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    with config_faults(config):
        return ROOT_MODELS.build(model)


def deploy_config_text(config: Config, without: Sequence[Place] = ()) -> str:
    """Return the text of the deploy form of a config; see :func:`deploy_form`.

    A string that begins with the path of an environment variable of the source
    (``{{$COCO_ROOT:data/coco}}``) begins with the variable again: data roots are those of the machine
    that uses the pair.
    """
    text = deploy_form(config, without).dump()
    paths = {
        os.environ.get(name, default): f'{{{{${name}:{default}}}}}'
        for name, default in _ENVIRONMENT.findall(config.text)
        if '/' in default  # other variables choose a base file or a number
    }
    for path in sorted(filter(None, paths), reverse=True):
        end = '' if path.endswith('/') else r"(?=[/'])"
        text = re.sub(f"'{re.escape(path)}{end}", f"'{paths[path]}".replace('\\', r'\\'), text)
    return text


def absolute_paths(text: str) -> list[str]:
    """Return the absolute paths in the text of a config."""
    found = re.findall(r"'((?:/|~/|[A-Za-z]:[\\/])[^'\n]*)'", text)
    return sorted({path for path in found if len(path) > 1})


def deploy_form(config: Config, without: Sequence[Place] = ()) -> Config:
    """Return the config of the deploy form, with some settings of the model set to None (``without``).

    Every MobileOne in the model gets ``deploy=True``. Pretrained files are removed, because the weights
    are in the checkpoint of the pair, and a teacher in a file of its own is written into the config.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    content = copy.deepcopy(config.to_dict())
    for key in RUN_KEYS:
        content.pop(key, None)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        # torch refuses persistent workers without workers; mmpretrain's tools add them by default.
        if content.get(loader) and not content[loader].get('num_workers'):
            content[loader]['persistent_workers'] = False
    _for_inferencers(content)
    for _, node in walk(content['model']):
        if is_mobileone(node):
            node['deploy'] = True
            node.pop('init_cfg', None)
        elif any(type_name(n).endswith('Pretrained') for _, n in walk(node.get('init_cfg'))):
            del node['init_cfg']
        if isinstance(node.get('pretrained'), str):
            del node['pretrained']
        if 'teacher_config' in node:
            node['teacher_config'] = _teacher(node['teacher_config'])
            node['teacher_ckpt'] = None  # a path of this machine, which only training needs
    for place in without:
        node = content['model']
        for part in place[:-1]:
            node = node[part]
        node[place[-1]] = None
    imports = content.setdefault('custom_imports', dict(imports=[], allow_failed_imports=False))
    given = imports['imports']
    names = [given] if isinstance(given, str) else given
    # First: its import replaces missing compiled operators.
    imports['imports'] = list(dict.fromkeys(['mobileone_mm', *names]))
    return Config(content)


def _for_inferencers(content: dict[str, Any]) -> None:
    """Write what the hosts' inference functions look for: names of their loaders, ``test_pipeline``."""
    in_mmseg = content.get('default_scope') == 'mmseg'
    if in_mmseg and (found := next(datasets(content, 'test_dataloader'), None)):
        content.setdefault('test_pipeline', copy.deepcopy(found[1].get('pipeline')))
    masks = 'LoadAnnotations' if in_mmseg else 'mmseg.LoadAnnotations'
    # The name at the host, and the arguments of ours alone.
    loaders: dict[str, tuple[str, tuple[str, ...]]] = {
        'mobileone_mm.LoadImage': ('LoadImageFromFile', ('on_error',)),
        'mobileone_mm.LoadSegAnnotations': (masks, ('on_error', 'num_classes', 'ignore_index')),
    }
    for path, node in walk(content):
        if type_name(node) in loaders:
            node['type'], own = loaders[type_name(node)]
            for key in own:
                node.pop(key, None)
        # Inferencers remove the host's loader; a dataset needs ours to renumber its masks.
        if type_name(node) == masks and 'label_map' in node:
            if path.startswith('test_pipeline'):
                del node['label_map']
            else:
                node['type'] = 'mobileone_mm.LoadSegAnnotations'


def is_mobileone(node: Any) -> bool:
    """Return whether a dict of a config is our backbone."""
    kind = class_of(node)
    return kind is not None and issubclass(kind, MobileOne)


def _teacher(given: Any) -> dict[str, Any]:
    """Return the model of a teacher: mmdet takes a dict, a path, or a path inside its own package."""
    if not isinstance(given, (str, Path)):
        return dict(given)
    path = Path(given)
    if not path.is_file():
        from mmengine.utils import get_installed_path

        path = Path(get_installed_path('mmdet')).parent / path
    return {'model': load_config(path).to_dict()['model']}
