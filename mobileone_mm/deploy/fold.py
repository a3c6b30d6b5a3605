"""Which BNs of necks and heads can be folded, and which edits of the config remove them.

The hosts build a convolution with a bias where ``norm_cfg`` is None, so the written config says that.
No table of classes can tell whether a part really becomes its folded form by this edit. Instead, the
edited model is built and compared with the original: the folded BNs must be gone, their layers must
have a bias, and everything else must be the same.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from ..config.tree import class_of
from ..errors import one_line
from ..reparam.conv_norm import ConvNorm, Found, find_conv_norms, outer_modules
from . import config as configs
from .config import Place

NORM_KEY = 'norm_cfg'
_OTHER_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Folding:
    """The deploy form of a model, built from its config; its weights are not set."""

    text: str  # the config, which builds the model
    model: nn.Module
    without: tuple[Place, ...]  # settings of the model that the text sets to None
    pairs: list[ConvNorm]  # layers and BNs that become one layer
    left: dict[str, str]  # names of normalisation layers that stay, with the reason


def foldable(model: nn.Module) -> Found:
    """Find the BNs of necks and heads that can be folded, judged by the structure of the model."""
    found = find_conv_norms(model)
    left = dict(found.left)
    for name, module in outer_modules(model):
        if isinstance(module, _BatchNorm) and any('backbone' in part for part in name.split('.')):
            left[name] = 'belongs to another backbone, which stays as it is'
        elif isinstance(module, _OTHER_NORMS) and not isinstance(module, _BatchNorm):
            left[name] = f'is a {type(module).__name__}, which depends on the input'
    for pair in found.pairs:
        if not pair.parent:
            left.setdefault(pair.norm, 'is a direct child of the model, not of a part of it')
    return Found([pair for pair in found.pairs if pair.norm not in left], left)


def build_deploy_form(config: Config, model: nn.Module, found: Found) -> Folding:
    """Build the deploy form of a model, with as many of the BNs folded as a config can express."""
    pairs = {pair.norm: pair for pair in found.pairs}
    without = tuple(_places(configs.deploy_form(config).model.to_dict())) if pairs else ()
    refused: dict[Place, str] = {}
    try:  # usually all edits are good, and one build is enough
        text, deployed = _build(config, without)
        folded = _folded_by(model, deployed, pairs)
    except Exception:  # constructors of the hosts raise anything
        without, folded, refused = _one_by_one(config, model, pairs, without)
        text, deployed = _build(config, without)
    left = {norm: _why_not(norm, refused) for norm in pairs if norm not in folded}
    chosen = [pair for norm, pair in pairs.items() if norm in folded]
    return Folding(text, deployed, without, chosen, {**found.left, **left})


def _build(config: Config, without: Sequence[Place]) -> tuple[str, nn.Module]:
    text = configs.deploy_config_text(config, without)
    return text, configs.build_model(Config.fromstring(text, '.py'))


def _one_by_one(
    config: Config, model: nn.Module, pairs: Mapping[str, ConvNorm], candidates: Sequence[Place]
) -> tuple[tuple[Place, ...], set[str], dict[Place, str]]:
    """Return the edits that work together, the norms that they fold, and why the others do not."""
    without: tuple[Place, ...] = ()
    folded: set[str] = set()
    refused: dict[Place, str] = {}
    for place in candidates:
        edits = (*without, place)
        try:
            edited = configs.build_model(configs.deploy_form(config, edits))
            now = _folded_by(model, edited, pairs)
        except Exception as error:  # constructors of the hosts raise anything
            refused[place] = one_line(error)[:200]
            continue
        if len(now) > len(folded):
            without, folded = edits, now
    return without, folded, refused


def _places(node: Any, place: Place = ()) -> Iterator[Place]:
    """Yield where the config of a model, outside backbones, sets or implies a normalisation."""
    if isinstance(node, Mapping):
        if configs.is_mobileone(node):
            return
        if 'type' in node and NORM_KEY not in node and _has_default(node):
            yield (*place, NORM_KEY)
        for key, value in node.items():
            # The checkpoint has no weights of a teacher with a config of its own.
            if 'backbone' in str(key) or key == 'teacher_config':
                continue
            if str(key).endswith(NORM_KEY):
                if isinstance(value, Mapping):
                    yield (*place, key)
            else:
                yield from _places(value, (*place, key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _places(value, (*place, index))


def _has_default(node: Mapping[str, Any]) -> bool:
    """Return whether a class normalises although its config has no ``norm_cfg``."""
    kind = class_of(node)
    for base in inspect.getmro(kind) if kind is not None else ():
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(vars(base)['__init__']).parameters
        if NORM_KEY in parameters:
            return isinstance(parameters[NORM_KEY].default, Mapping)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def _folded_by(model: nn.Module, edited: nn.Module, pairs: Mapping[str, ConvNorm]) -> set[str]:
    """Return the names of the norms that the edited model has folded; raise if it differs elsewhere."""
    before, after = dict(outer_modules(model)), dict(outer_modules(edited))
    gone = {
        name
        for name, module in before.items()
        if isinstance(module, _BatchNorm) and type(after.get(name)) in (type(None), nn.Identity)
    }
    for names, problem in (
        (before.keys() - after.keys() - gone, "the model would lose '{}'"),
        (gone - pairs.keys(), "'{}' would also be removed, and it cannot be folded"),
        (after.keys() - before.keys(), "the model would get '{}'"),
    ):
        if names:
            raise ValueError(problem.format(min(names)))
    folded = {pairs[name].layer for name in gone}
    for name in [name for name in before if name not in gone]:
        if type(before[name]) is not type(after[name]):
            raise ValueError(f"'{name}' would become a {type(after[name]).__name__}")
        own, other = _shapes(before[name]), _shapes(after[name])
        if name in folded:
            if 'bias' not in other:
                raise ValueError(f"'{name}' would have no bias")
            own['bias'] = other['bias']
        if own != other:
            raise ValueError(f"'{name}' would have other tensors")
    return gone


def _shapes(module: nn.Module) -> dict[str, Any]:
    tensors = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
    return {name: tensor.shape for name, tensor in chain(*tensors)}


def _why_not(norm: str, refused: Mapping[Place, str]) -> str:
    parts = {*norm.split('.')}

    def agreement(place: Place) -> int:
        return len({str(key) for key in place} & parts)

    # The setting of another item of a list is not the reason.
    fitting = [p for p in refused if all(str(key) in parts for key in p if isinstance(key, int))]
    place = max(fitting, key=agreement, default=None)
    if place is None or (len(place) > 1 and not agreement(place)):
        return 'stays, because no norm_cfg of the config removes it'
    setting = '.'.join(map(str, ('model', *place)))
    return f'stays, because with {setting}=None {refused[place]}'
