"""Key names of the public MobileOne checkpoints, as one table.

All public ports hold the same tensors under different names, so conversion is renaming. A scheme is
a set of templates: a key is parsed with the templates of its own scheme and rendered with those of
another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from ..errors import InputError

T = TypeVar('T')

#: parts that only one of the two forms has
TRAIN_PARTS = ('conv', 'conv_norm', 'scale', 'scale_norm', 'identity')
DEPLOY_PARTS = ('fused',)


@dataclass(frozen=True)
class Scheme:
    """How one code base names the tensors.

    In the templates ``{i}`` is the unit in its stage (even: depthwise, odd: pointwise) and ``{j}``
    the branch.

    Attributes:
        stages: The stem and the four stages, each without its trailing dot.
        parts: Templates of a unit's parts.
        classifier: The linear layer after global pooling.
        wrappers: Prefixes that a whole file may have before every key of the backbone.
    """

    stages: tuple[str, str, str, str, str]
    parts: Mapping[str, str]
    classifier: str
    wrappers: tuple[str, ...] = ('',)


_APPLE_PARTS = {
    'conv': 'rbr_conv.{j}.conv',
    'conv_norm': 'rbr_conv.{j}.bn',
    'scale': 'rbr_scale.conv',
    'scale_norm': 'rbr_scale.bn',
    'identity': 'rbr_skip',
    'fused': 'reparam_conv',
    'se_reduce': 'se.reduce',
    'se_expand': 'se.expand',
}
_FIVE_STAGES = ('stage0', 'stage1.{i}', 'stage2.{i}', 'stage3.{i}', 'stage4.{i}')

SCHEMES: dict[str, Scheme] = {
    'mmpretrain': Scheme(
        stages=_FIVE_STAGES,
        parts={
            'conv': 'branch_conv_list.{j}.conv',
            'conv_norm': 'branch_conv_list.{j}.norm',
            'scale': 'branch_scale.conv',
            'scale_norm': 'branch_scale.norm',
            'identity': 'branch_norm',
            'fused': 'branch_reparam',
            'se_reduce': 'se.conv1.conv',
            'se_expand': 'se.conv2.conv',
        },
        classifier='head.fc',
        wrappers=('backbone.', ''),
    ),
    'apple': Scheme(
        stages=_FIVE_STAGES, parts=_APPLE_PARTS, classifier='linear', wrappers=('', 'backbone.')
    ),
    'timm': Scheme(
        stages=('stem', 'stages.0.{i}', 'stages.1.{i}', 'stages.2.{i}', 'stages.3.{i}'),
        parts={
            'conv': 'conv_kxk.{j}.conv',
            'conv_norm': 'conv_kxk.{j}.bn',
            'scale': 'conv_scale.conv',
            'scale_norm': 'conv_scale.bn',
            'identity': 'identity',
            'fused': 'reparam_conv',
            'se_reduce': 'attn.fc1',
            'se_expand': 'attn.fc2',
        },
        classifier='head.fc',
        wrappers=('', 'backbone.'),
    ),
    'corenet': Scheme(
        stages=('conv_1', 'layer_2.{i}', 'layer_3.{i}', 'layer_4.{i}', 'layer_5.{i}'),
        parts={
            'conv': 'rbr_conv.{j}.block.conv',
            'conv_norm': 'rbr_conv.{j}.block.norm',
            'scale': 'rbr_scale.block.conv',
            'scale_norm': 'rbr_scale.block.norm',
            'identity': 'rbr_skip',
            'fused': 'reparam_conv',
            'se_reduce': 'se.se_layer.fc1.block.conv',
            'se_expand': 'se.se_layer.fc2.block.conv',
        },
        classifier='classifier.classifier_fc',
        wrappers=('', 'backbone.'),
    ),
}


@dataclass(frozen=True)
class TensorName:
    """Scheme-independent name of a tensor.

    Attributes:
        stage: 0 for the stem, 1 to 4 for the stages, None for the classifier.
        part: A key of :attr:`Scheme.parts`, or 'classifier'.
        tensor: 'weight', 'bias', or a statistic of BN.
        unit: The unit in its stage; None for the stem and the classifier.
        branch: The branch of the unit, for parts that come several times.
    """

    stage: int | None
    part: str
    tensor: str
    unit: int | None = None
    branch: int | None = None


def parse(key: str, scheme: str) -> TensorName | None:
    """Parse a key of the scheme, without wrapper; None if it is no such key."""
    if match := _classifier_pattern(scheme).fullmatch(key):
        return TensorName(None, 'classifier', match['tensor'])
    for stage, part, pattern in _patterns(scheme):
        if match := pattern.fullmatch(key):
            groups = match.groupdict()
            unit, branch = groups.get('i'), groups.get('j')
            return TensorName(
                stage,
                part,
                groups['tensor'],
                None if unit is None else int(unit),
                None if branch is None else int(branch),
            )
    return None


def render(name: TensorName, scheme: str) -> str:
    """Return the key of a tensor in the scheme, without wrapper."""
    table = SCHEMES[scheme]
    if name.stage is None:
        return f'{table.classifier}.{name.tensor}'
    template = f'{table.stages[name.stage]}.{table.parts[name.part]}.{name.tensor}'
    return template.format(i=name.unit, j=name.branch)


def scheme_of(keys: Iterable[str]) -> str | None:
    """Return the scheme of the keys, recognised by the stem below any prefix; None if unknown."""
    keys = list(keys)
    for name in SCHEMES:
        pattern = _stem_pattern(name)
        if any(pattern.fullmatch(key) for key in keys):
            return name
    return None


def places(keys: Iterable[str], scheme: str | None = None) -> set[str]:
    """Return the prefix of every MobileOne among the keys: ``backbone.``; '' for a bare one."""
    keys = list(keys)
    scheme = scheme or scheme_of(keys)
    if scheme is None:
        return set()
    pattern = _stem_pattern(scheme)
    return {match['prefix'] for key in keys if (match := pattern.fullmatch(key))}


def is_unit_key(key: str, scheme: str) -> bool:
    """Return whether a key is below the stem or a stage of a bare backbone, known or not."""
    return _stage_pattern(scheme).match(key) is not None


def form_of(keys: Iterable[str]) -> str | None:
    """Return 'train' or 'deploy', by the units among the keys; None if there are none.

    Raises:
        InputError: There are units of both forms.
    """
    keys = list(keys)
    scheme = scheme_of(keys)
    if scheme is None:
        return None
    found = set()
    for form, parts in (('train', TRAIN_PARTS), ('deploy', DEPLOY_PARTS)):
        pattern = _parts_pattern(scheme, parts)
        if any(pattern.search(key) for key in keys):
            found.add(form)
    if len(found) > 1:
        raise InputError(
            'state dict: holds fused and unfused units together; convert it again from the file in '
            'training form'
        )
    return found.pop() if found else None


def to_mmpretrain(state_dict: Mapping[str, T], keep_others: bool = False) -> dict[str, T]:
    """Rename a MobileOne state dict to mmpretrain's keys.

    The backbone comes without a prefix (``stage0. ...``), the classifier as ``head.fc.``. Keys that
    are mmpretrain's lose their ``backbone.``; other keys of such a file stay as they are.

    Args:
        state_dict: A MobileOne, bare or as ``backbone.``.
        keep_others: Keep keys as they are that the scheme of another code base does not know.

    Raises:
        InputError: The keys follow no known scheme, or a file of another code base has a key that its
            scheme does not know.
    """
    scheme = scheme_of(state_dict)
    if scheme is None:
        for other, table in SCHEMES.items():
            if any(_parse_wrapped(key, other) for key in state_dict if '.fc.' not in key):
                raise InputError(
                    f"state dict: lacks the stem's convolution ('{table.stages[0]}'), though it has "
                    f"other keys of {other}'s naming; the file is damaged or cut off"
                )
        raise InputError(
            f'state dict: the keys ({_first(state_dict)}) are not those of a MobileOne; known are '
            f'the files of {", ".join(SCHEMES)}'
        )
    renamed: dict[str, T] = {}
    for key, value in state_dict.items():
        name = _parse_wrapped(key, scheme)
        if name is None and scheme != 'mmpretrain' and not keep_others:
            raise InputError(
                f"state dict: the key '{key}' is unknown in a file of {scheme}'s naming"
            )
        new = key if name is None else render(name, 'mmpretrain')
        if new in renamed:
            raise InputError(f"state dict: '{new}' comes twice, under two names")
        renamed[new] = value
    return renamed


def to_classifier(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename as :func:`to_mmpretrain`, with ``backbone.`` before the backbone: a host's classifier."""
    renamed = to_mmpretrain(state_dict)
    return {
        f'backbone.{key}' if re.match(r'stage\d\.', key) else key: value
        for key, value in renamed.items()
    }


def to_scheme(state_dict: Mapping[str, T], scheme: str) -> dict[str, T]:
    """Rename the state dict of a MobileOne classifier or backbone of any known naming to another.

    For ``mmpretrain`` that is a host's classifier (``backbone.``, ``head.fc.``), for the others a
    file as their own code writes it.

    Raises:
        InputError: The scheme is unknown, the keys are those of no MobileOne, or the file holds more
            than a classifier, for which the other code base has no name.
    """
    if scheme not in SCHEMES:
        raise InputError(f"to: got '{scheme}'; {', '.join(SCHEMES)} are allowed")
    if scheme == 'mmpretrain':
        return to_classifier(state_dict)
    renamed: dict[str, T] = {}
    for key, value in to_mmpretrain(state_dict).items():
        name = parse(key, 'mmpretrain')
        if name is None:
            raise InputError(
                f"state dict: '{key}' is no part of a classifier, so {scheme} has no name for it; "
                'only classifiers and backbones can be renamed'
            )
        renamed[render(name, scheme)] = value
    return renamed


def _parse_wrapped(key: str, scheme: str) -> TensorName | None:
    for wrapper in SCHEMES[scheme].wrappers:
        if key.startswith(wrapper):
            name = parse(key.removeprefix(wrapper), scheme)
            if name is not None:
                return name
    return None


def _first(keys: Iterable[str], count: int = 3) -> str:
    keys = list(keys)
    shown = ', '.join(keys[:count]) or 'none'
    return f'{shown}, ...' if len(keys) > count else shown


def _regex(template: str) -> str:
    pattern = re.escape(template)
    return pattern.replace(r'\{i\}', r'(?P<i>\d+)').replace(r'\{j\}', r'(?P<j>\d+)')


@cache
def _patterns(scheme: str) -> tuple[tuple[int, str, re.Pattern[str]], ...]:
    table = SCHEMES[scheme]
    return tuple(
        (stage, part, re.compile(rf'{_regex(place)}\.{_regex(template)}\.(?P<tensor>\w+)'))
        for stage, place in enumerate(table.stages)
        for part, template in table.parts.items()
    )


@cache
def _classifier_pattern(scheme: str) -> re.Pattern[str]:
    return re.compile(rf'{_regex(SCHEMES[scheme].classifier)}\.(?P<tensor>\w+)')


@cache
def _stem_pattern(scheme: str) -> re.Pattern[str]:
    table = SCHEMES[scheme]
    parts = '|'.join(_regex(table.parts[part]) for part in ('conv', 'fused'))
    stem = rf'{_regex(table.stages[0])}\.(?:{parts})\.weight'
    return re.compile(rf'(?P<prefix>(?:.*\.)?){stem}')


@cache
def _stage_pattern(scheme: str) -> re.Pattern[str]:
    tops = (stage.removesuffix('.{i}') for stage in SCHEMES[scheme].stages)
    return re.compile(rf'(?:{"|".join(map(re.escape, tops))})\.')


@cache
def _parts_pattern(scheme: str, parts: tuple[str, ...]) -> re.Pattern[str]:
    table = SCHEMES[scheme]
    places = '|'.join(re.sub(r'\?P<\w>', '', _regex(place)) for place in table.stages)
    names = '|'.join(re.sub(r'\?P<\w>', '', _regex(table.parts[part])) for part in parts)
    return re.compile(rf'(?:^|\.)(?:{places})\.(?:{names})\.\w+$')
