"""Which BNs of necks and heads fold, and how a config says so to an unmodified host.

Hosts build a convolution with a bias where ``norm_cfg`` is None, so this is what the written config
says. Whether a part really turns into its folded form by that is not for a table of classes to know:
every such edit is tried, the edited model is built (without memory, on torch's meta device), and it
must differ from the original in the folded BNs and the biases instead of them, and in nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from ..errors import InputError
from ..reparam.conv_norm import ConvNorm, find_conv_norms, outer_modules
from . import config as configs
from .config import Place

NORM_KEY = 'norm_cfg'
_OTHER_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class FoldPlan:
    """What is folded besides the backbone.

    Attributes:
        without: Settings of the model that the written config sets to None.
        pairs: The layers and BNs that become one.
        left: Names of normalisation layers that stay, with the reason.
    """

    without: tuple[Place, ...] = ()
    pairs: list[ConvNorm] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


class _NotFoldedError(Exception):
    """An edit of the config does not give the folded model; the text says why."""


def plan_folding(
    config: Config, model: nn.Module, kept: Mapping[str, str] | None = None
) -> FoldPlan:
    """Find the edits of a config that fold as many BNs as can be folded.

    Args:
        config: The config of the original.
        model: The original, with its weights.
        kept: Names of norms that must stay, with the reason.
    """
    found = find_conv_norms(model)
    left = {**found.left, **(kept or {})}
    pairs = {pair.norm: pair for pair in found.pairs if pair.norm not in left}
    for name, module in outer_modules(model):
        if isinstance(module, _BatchNorm) and _in_backbone(name):
            left[name] = 'belongs to another backbone, which stays as it is'
            pairs.pop(name, None)
        elif isinstance(module, _OTHER_NORMS) and not isinstance(module, _BatchNorm):
            left[name] = f'is a {type(module).__name__}, which depends on the input'
    for norm in [norm for norm, pair in pairs.items() if not pair.parent]:
        left[norm] = 'stands in the model itself, not in a part of it'
        del pairs[norm]
    candidates = list(_places(configs.deploy_form(config).model.to_dict())) if pairs else []
    without, folded, refused = _accepted(config, model, pairs, candidates)
    for norm in pairs:
        if norm not in folded:
            left[norm] = _why_not(norm, refused)
    return FoldPlan(without, [pairs[norm] for norm in pairs if norm in folded], left)


def _accepted(
    config: Config, model: nn.Module, pairs: Mapping[str, ConvNorm], candidates: list[Place]
) -> tuple[tuple[Place, ...], set[str], dict[Place, str]]:
    """The edits that hold together, the norms that they fold, and why the others do not."""
    if not candidates:
        return (), set(), {}
    try:  # usually all of them do, and one build is enough
        return tuple(candidates), _folded_by(config, model, pairs, tuple(candidates)), {}
    except _NotFoldedError:
        pass
    without: tuple[Place, ...] = ()
    folded: set[str] = set()
    refused: dict[Place, str] = {}
    for place in candidates:
        try:
            now = _folded_by(config, model, pairs, (*without, place))
        except _NotFoldedError as error:
            refused[place] = str(error)
            continue
        if len(now) > len(folded):
            without, folded = (*without, place), now
    return without, folded, refused


def _places(node: Any, place: Place = ()) -> Iterator[Place]:
    """Where a model's config, outside backbones, says or implies a normalisation."""
    if isinstance(node, Mapping):
        if configs.is_mobileone(node.get('type')):
            return
        if 'type' in node and NORM_KEY not in node and _has_default(node['type']):
            yield (*place, NORM_KEY)
        for key, value in node.items():
            # A teacher in a config of its own is no part of the checkpoint.
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


def _has_default(kind: Any) -> bool:
    """Whether a class normalises although its config does not say so."""
    kind = configs.class_of(kind)
    for base in inspect.getmro(kind) if kind is not None else ():
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(vars(base)['__init__']).parameters
        if NORM_KEY in parameters:
            return isinstance(parameters[NORM_KEY].default, Mapping)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def _folded_by(
    config: Config, model: nn.Module, pairs: Mapping[str, ConvNorm], without: tuple[Place, ...]
) -> set[str]:
    """Names of the norms that these edits fold.

    Raises:
        _NotFoldedError: They give another model, or none.
    """
    edited = _skeleton(configs.deploy_form(config, without))
    before, after = dict(outer_modules(model)), dict(outer_modules(edited))
    gone = {
        name
        for name, module in before.items()
        if isinstance(module, _BatchNorm) and type(after.get(name)) in (type(None), nn.Identity)
    }
    for name in before.keys() - after.keys() - gone:
        raise _NotFoldedError(f"the model would lose '{name}'")
    for name in sorted(gone - pairs.keys()):
        raise _NotFoldedError(f"'{name}' would go, too, which cannot be folded")
    for name in after.keys() - before.keys():
        raise _NotFoldedError(f"the model would get '{name}'")
    biases = {pairs[name].layer for name in gone}
    for name, module in before.items():
        if name not in gone:
            _check_tensors(name, module, after[name], name in biases)
    return gone


def _skeleton(config: Config) -> nn.Module:
    try:
        with torch.device('meta'):
            return configs.build_model(config)
    except InputError:  # a constructor that looks at its numbers
        pass
    try:
        return configs.build_model(config)
    except InputError as error:
        raise _NotFoldedError(str(error).removeprefix('config: ')) from error


def _check_tensors(name: str, before: nn.Module, after: nn.Module, folded: bool) -> None:
    if type(before) is not type(after):
        raise _NotFoldedError(f"'{name}' would become a {type(after).__name__}")
    shapes = [
        {key: tuple(t.shape) for key, t in tensors.items() if t is not None}
        for module in (before, after)
        for tensors in ({**module._parameters, **module._buffers},)
    ]
    if folded:
        if 'bias' not in shapes[1]:
            raise _NotFoldedError(f"'{name}' would have no bias")
        shapes[0]['bias'] = shapes[1]['bias']
    if shapes[0] != shapes[1]:
        raise _NotFoldedError(f"'{name}' would have other tensors")


def _in_backbone(name: str) -> bool:
    return any('backbone' in part for part in name.split('.'))


def _why_not(norm: str, refused: Mapping[Place, str]) -> str:
    def agreement(place: Place) -> int:
        """How many last parts of the setting's path occur in the norm's name, in a row."""
        path = [str(key) for key in place[:-1]]
        ends = ('.'.join(path[-count:]) for count in range(1, len(path) + 1))
        return sum(f'.{end}.' in f'.{norm}.' for end in ends)

    place = max(refused, key=agreement, default=None)
    if place is None or (len(place) > 1 and not agreement(place)):
        return 'stays, because no norm_cfg of the config switches it off'
    setting = '.'.join(map(str, ('model', *place)))
    return f'stays, because with {setting}=None {refused[place]}'
