"""Which MobileOne a file holds, told from its keys and shapes, and whether it is whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..models import ARCHS, MobileOne
from ..models.sizes import BASE_CHANNELS, NUM_STAGES, Arch
from .names import TensorName, form_of, parse
from .numbers import number_problem, unit_problem

_PLACE = re.compile(r'(?:^|.*\.)(?=stage\d\.)')
_COUNTER = 'num_batches_tracked'

Tensors = dict[str, Tensor]


def check_whole(state: Mapping[str, Tensor]) -> str | None:
    """Check that every MobileOne of a state dict is complete, with shapes that fit one another.

    The size is told from the file itself: any number of blocks, branches and channels is allowed, but
    a unit that has less than its neighbours is an error, as are numbers that are none. Nets without any
    scale or identity branch are whole as well.

    Args:
        state: Keys of mmpretrain's naming, below any prefixes; in any form.

    Returns:
        The public size of the first MobileOne, None if it has another.

    Raises:
        InputError: Something is missing, too much, of another shape or type, NaN or Inf.
    """
    problem = unit_problem(state) or next(
        filter(None, (number_problem(key, value, value.dtype) for key, value in state.items())),
        None,
    )
    if problem:
        raise InputError(problem)
    found: list[Arch | None] = []
    for prefix, tensors in _backbones(state).items():
        arch, channels = _arch(prefix, tensors)
        scale, identity = (
            any(f'.{branch}.' in key for key in tensors)
            for branch in ('branch_scale', 'branch_norm')
        )
        with torch.device('meta'):
            model = MobileOne(
                arch,
                channels,
                use_scale=scale,
                use_identity=identity,
                deploy=form_of(tensors) == 'deploy',
            )
        _compare(prefix, tensors, model.state_dict())
        # The public sizes have both kinds of branches; a fused unit does not tell.
        found.append(arch if model.deploy or (scale and identity) else None)
        _check_classifier(prefix, state, arch.channels[-1])
    return _public_name(found[0], form_of(state) == 'deploy') if found and found[0] else None


def _backbones(state: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """The tensors of each MobileOne by their keys without its prefix."""
    found: dict[str, Tensors] = defaultdict(dict)
    for key, value in state.items():
        place = _PLACE.match(key)
        if place:
            found[place.group()][key[place.end() :]] = value
    named = {
        prefix: tensors
        for prefix, tensors in found.items()
        if any(_parsed(key) is not None for key in tensors)
    }
    for prefix, tensors in named.items():
        for key in tensors:
            if _parsed(key) is None:
                raise InputError(f"has '{prefix}{key}', which no MobileOne has a place for")
    return named


def _parsed(key: str) -> TensorName | None:
    return parse(key, 'mmpretrain')


def _arch(prefix: str, tensors: Tensors) -> tuple[Arch, int]:
    """The size whose tensors these are, and the channels of its input."""
    names = {key: name for key in tensors if (name := _parsed(key)) is not None}
    blocks, widths, branches, squeezed = [], [], [], []
    for stage in range(1, NUM_STAGES + 1):
        own = {key: name for key, name in names.items() if name.stage == stage}
        units = _count(prefix, f'stage{stage}', (name.unit for name in own.values()))
        if units % 2:
            raise InputError(f"lacks '{prefix}stage{stage}.{units}': units come in pairs")
        blocks.append(units // 2)
        outputs = Counter(
            tensors[key].shape[0]
            for key, name in own.items()
            if name.part in ('conv', 'fused') and name.tensor == 'weight' and (name.unit or 0) % 2
        )
        widths.append(outputs.most_common(1)[0][0] if outputs else 0)
        conv = [name.branch for name in own.values() if name.part == 'conv']
        branches.append(_count(prefix, f'stage{stage}.*.branch_conv_list', conv) if conv else 1)
        with_se = [
            name.unit // 2
            for name in own.values()
            if name.part.startswith('se_') and name.unit is not None
        ]
        squeezed.append(units // 2 - min(with_se) if with_se else 0)
    if not all(widths):
        raise InputError(f"holds no convolution in one of the stages below '{prefix}'")
    stem = [
        tensors[key].shape[1]
        for key, name in names.items()
        if name.stage == 0 and name.part in ('conv', 'fused') and name.tensor == 'weight'
    ]
    if not stem:
        raise InputError(f"lacks the stem's convolution ('{prefix}stage0')")
    factors = tuple(width / base for width, base in zip(widths, BASE_CHANNELS, strict=True))
    return Arch(tuple(blocks), factors, tuple(branches), tuple(squeezed)), int(stem[0])


def _count(prefix: str, what: str, numbers: Iterable[int | None]) -> int:
    """How many there are, numbered from 0 without a gap."""
    found = {number for number in numbers if number is not None}
    for number in range(len(found)):
        if number not in found:
            raise InputError(f"lacks '{prefix}{what}.{number}'; the file is damaged or cut off")
    if not found:
        raise InputError(f"lacks '{prefix}{what}'; the file is damaged or cut off")
    return len(found)


def _compare(prefix: str, tensors: Tensors, layout: Mapping[str, Tensor]) -> None:
    for key, own in layout.items():
        if key.endswith(_COUNTER):
            continue
        if key not in tensors:
            raise InputError(
                f"lacks '{prefix}{key}', which a MobileOne of these units has; the file is damaged, "
                'or of another implementation'
            )
        if tensors[key].shape != own.shape:
            raise InputError(
                f"'{prefix}{key}' is {list(tensors[key].shape)}, {list(own.shape)} fits the rest of "
                'the net; the file is damaged, or of another implementation'
            )
    for key in tensors:
        if key not in layout:
            raise InputError(
                f"has '{prefix}{key}', for which a MobileOne of these units has no place; the file is "
                'damaged, or of another implementation'
            )


def _check_classifier(prefix: str, state: Mapping[str, Tensor], width: int) -> None:
    head = prefix.removesuffix('backbone.') + 'head.fc.'
    weight, bias = state.get(f'{head}weight'), state.get(f'{head}bias')
    if weight is None and bias is None:
        return
    if weight is None or bias is None:
        raise InputError(f"lacks '{head}{'weight' if weight is None else 'bias'}'")
    if weight.shape != (bias.numel(), width) or bias.ndim != 1:
        raise InputError(
            f"'{head}weight' is {list(weight.shape)}, [{bias.numel()}, {width}] fits the rest of the "
            'net'
        )


def _public_name(arch: Arch, deploy: bool) -> str | None:
    for name, known in ARCHS.items():
        # A fused unit does not tell how many branches it had.
        if arch == (replace(known, num_conv_branches=arch.num_conv_branches) if deploy else known):
            return name
    return None
