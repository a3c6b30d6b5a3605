"""Key names of the public MobileOne checkpoints, as one table.

All public ports hold the same tensors under different names, so conversion is renaming. A scheme is
a set of names: a key is parsed with those of its own scheme and rendered with those of another.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

from ..errors import InputError

T = TypeVar('T')

#: parts that only one of the two forms has
FORM_PARTS = {
    'train': ('conv', 'conv_norm', 'scale', 'scale_norm', 'identity'),
    'deploy': ('fused',),
}
_PARTS = (*FORM_PARTS['train'], *FORM_PARTS['deploy'], 'se_reduce', 'se_expand')


class Scheme:
    """How one code base names the tensors."""

    def __init__(self, stages: str, parts: str, classifier: str) -> None:
        #: the stem and four stages; the number of the unit follows (even: depthwise, odd: pointwise)
        self.stages = stages.split()
        self.parts = dict(
            zip(_PARTS, parts.split(), strict=True)
        )  # of a unit; ``{j}`` is the branch
        self.classifier = classifier  # the linear layer after global pooling


SCHEMES: dict[str, Scheme] = {
    'mmpretrain': Scheme(
        'stage0 stage1 stage2 stage3 stage4',
        'branch_conv_list.{j}.conv branch_conv_list.{j}.norm branch_scale.conv branch_scale.norm '
        'branch_norm branch_reparam se.conv1.conv se.conv2.conv',
        'head.fc',
    ),
    'apple': Scheme(
        'stage0 stage1 stage2 stage3 stage4',
        'rbr_conv.{j}.conv rbr_conv.{j}.bn rbr_scale.conv rbr_scale.bn '
        'rbr_skip reparam_conv se.reduce se.expand',
        'linear',
    ),
    'timm': Scheme(
        'stem stages.0 stages.1 stages.2 stages.3',
        'conv_kxk.{j}.conv conv_kxk.{j}.bn conv_scale.conv conv_scale.bn '
        'identity reparam_conv attn.fc1 attn.fc2',
        'head.fc',
    ),
    'corenet': Scheme(
        'conv_1 layer_2 layer_3 layer_4 layer_5',
        'rbr_conv.{j}.block.conv rbr_conv.{j}.block.norm rbr_scale.block.conv rbr_scale.block.norm '
        'rbr_skip reparam_conv se.se_layer.fc1.block.conv se.se_layer.fc2.block.conv',
        'classifier.classifier_fc',
    ),
}


@dataclass(frozen=True)
class TensorName:
    """Scheme-independent name of a tensor."""

    stage: int | None  # 0 for the stem, 1 to 4 for the stages, None for the classifier
    part: str  # a key of Scheme.parts, or 'classifier'
    tensor: str  # 'weight', 'bias', or a statistic of BN
    unit: int | None = None  # the unit in its stage; None for the stem and the classifier
    branch: int | None = None  # for parts that come several times
    prefix: str = ''  # what precedes the name of a bare backbone, such as 'backbone.'


def parse(key: str, scheme: str) -> TensorName | None:
    """Parse a key of the scheme, below any prefix; None if it is no such key."""
    match = _pattern(scheme).fullmatch(key)
    if match is None:
        return None
    prefix, stage, unit, part, tensor = match.group('prefix', 'stage', 'unit', 'part', 'tensor')
    table = SCHEMES[scheme]
    if part is None:
        return TensorName(None, 'classifier', tensor, prefix=prefix)
    branch = re.search(r'\.(\d+)\.', part)
    known = part.replace(branch[0], '.{j}.') if branch else part
    return TensorName(
        stage=table.stages.index(stage) if stage else 0,
        part=next(name for name, pattern in table.parts.items() if pattern == known),
        tensor=tensor,
        unit=int(unit) if unit else None,
        branch=int(branch[1]) if branch else None,
        prefix=prefix,
    )


@cache
def _pattern(scheme: str) -> re.Pattern[str]:
    table = SCHEMES[scheme]
    stem, *stages = map(re.escape, table.stages)
    parts = '|'.join(re.escape(part).replace(r'\{j\}', r'\d+') for part in table.parts.values())
    unit = rf'(?:{stem}|(?P<stage>{"|".join(stages)})\.(?P<unit>\d+))\.(?P<part>{parts})'
    classifier = re.escape(table.classifier)
    return re.compile(rf'(?P<prefix>(?:.*\.)?)(?:{unit}|{classifier})\.(?P<tensor>\w+)')


def render(name: TensorName, scheme: str) -> str:
    """Return the key of a tensor in the scheme."""
    table = SCHEMES[scheme]
    if name.stage is None:
        return f'{name.prefix}{table.classifier}.{name.tensor}'
    unit = '' if name.unit is None else f'.{name.unit}'
    part = table.parts[name.part].format(j=name.branch)
    return f'{name.prefix}{table.stages[name.stage]}{unit}.{part}.{name.tensor}'


def scheme_of(keys: Iterable[str]) -> str | None:
    """Return the scheme of the keys, recognised by the stem below any prefix; None if unknown."""
    keys = list(keys)
    return next((scheme for scheme in SCHEMES if any(_stems(keys, scheme))), None)


def places(keys: Iterable[str], scheme: str | None = None) -> set[str]:
    """Return the prefix of every MobileOne among the keys: ``backbone.``; '' for a bare one."""
    keys = list(keys)
    scheme = scheme or scheme_of(keys)
    return {name.prefix for name in _stems(keys, scheme)} if scheme else set()


def _stems(keys: Iterable[str], scheme: str) -> Iterator[TensorName]:
    for key in keys:
        name = parse(key, scheme)
        if name and name.stage == 0 and name.part in ('conv', 'fused') and name.tensor == 'weight':
            yield name


def is_unit_key(key: str, scheme: str) -> bool:
    """Return whether a key is below the stem or a stage of a bare backbone, known or not."""
    return key.startswith(tuple(f'{stage}.' for stage in SCHEMES[scheme].stages))


def form_of(keys: Iterable[str]) -> str | None:
    """Return 'train' or 'deploy' by the units; None if there are none, an InputError for both."""
    keys = list(keys)
    scheme = scheme_of(keys)
    if scheme is None:
        return None
    parts = {name.part for key in keys if (name := parse(key, scheme))}
    found = [form for form, own in FORM_PARTS.items() if parts.intersection(own)]
    if len(found) > 1:
        raise InputError(
            'state dict: holds fused and unfused units together; convert it again from the file in '
            'training form'
        )
    return found[0]


def to_classifier(state_dict: Mapping[str, T], keep_others: bool = False) -> dict[str, T]:
    """Rename the state dict of a MobileOne, bare or as ``backbone.``, to the keys of mmpretrain.

    They are those of a classifier: ``backbone.`` and ``head.fc.``. Other keys of a file in mmpretrain's
    naming stay as they are; in a file of another code base, they are an InputError (unless
    ``keep_others``), and so are keys of no known scheme.
    """
    scheme = scheme_of(state_dict)
    if scheme is None:
        raise InputError(
            f'state dict: the keys ({some_keys(state_dict)}) are not those of a MobileOne: there is no '
            f'convolution of a stem as in the files of {", ".join(SCHEMES)}'
        )
    renamed: dict[str, T] = {}
    for key, value in state_dict.items():
        name, new = parse(key, scheme), key
        if name and name.prefix in ('', 'backbone.'):
            prefix = '' if name.stage is None else 'backbone.'
            new = render(replace(name, prefix=prefix), 'mmpretrain')
        elif scheme != 'mmpretrain' and not keep_others:
            raise InputError(f"state dict: '{key}' is unknown in a file of {scheme}'s naming")
        elif is_unit_key(key, 'mmpretrain'):
            new = f'backbone.{key}'
        if new in renamed:
            raise InputError(f"state dict: '{new}' comes twice, under two names")
        renamed[new] = value
    return renamed


def to_scheme(state_dict: Mapping[str, T], scheme: str) -> dict[str, T]:
    """Rename the state dict of a MobileOne classifier or backbone of any known naming to another.

    The result is as from :func:`to_classifier`, or a file as the other code base writes it. A key that
    the other code base has no name for is an InputError.
    """
    renamed = to_classifier(state_dict)
    if scheme == 'mmpretrain':
        return renamed
    result: dict[str, T] = {}
    for key, value in renamed.items():
        name = parse(key, 'mmpretrain')
        if name is None or name.prefix not in ('', 'backbone.'):
            raise InputError(
                f"state dict: '{key}' is no part of a classifier, so {scheme} has no name for it; "
                'only classifiers and backbones can be renamed'
            )
        result[render(replace(name, prefix=''), scheme)] = value
    return result


def some_keys(keys: Iterable[str]) -> str:
    """Return the first keys, for a message."""
    keys = list(keys)
    return (', '.join(keys[:3]) or 'none') + (', ...' if len(keys) > 3 else '')
