"""Tell from keys and shapes which MobileOne a file holds, and check that it is complete."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from ..models import ARCHS, MobileOne
from ..models.sizes import BASE_CHANNELS, NUM_STAGES, Arch
from .mismatch import number_problem, value_problem
from .names import TensorName, is_unit_key, parse

EPS = 1e-5  # of every public MobileOne
_DAMAGED = 'the file is damaged, or of another implementation'


def check_whole(state: Mapping[str, Tensor]) -> str | None:
    """Check that the values, every MobileOne and the classifier of a state dict are sound.

    Return the public size of the first MobileOne, None if it has another. A tensor that is missing,
    surplus, of another shape or type, or holds NaN or Inf, is an InputError.
    """
    sizes = check_units(state)
    for place, (model, _) in sizes.items():
        head = place.removesuffix('backbone.') + 'head.fc.'
        classifier = {key: state[head + key] for key in ('weight', 'bias') if head + key in state}
        if classifier:
            classes = next(iter(classifier.values())).shape[:1].numel()
            with torch.device('meta'):
                expected = torch.nn.Linear(model.arch.channels[-1], classes).state_dict()
            _compare(head, classifier, expected)
    if problem := value_problem(state, state):
        raise InputError(problem)
    return next(iter(sizes.values()))[1]


def check_units(
    state: Mapping[str, Tensor], eps: float = EPS
) -> dict[str, tuple[MobileOne, str | None]]:
    """Check that every MobileOne of a state dict is complete, with shapes that fit one another.

    The keys are mmpretrain's, below any prefixes, in any form. The size is told from the file: any
    number of blocks, branches and channels is allowed, but a unit that has less than its neighbours is
    an error. A model may lack all scale or identity branches.

    Return by prefix: a model without data of the size and form of the file, whose BNs have ``eps``,
    and its public name, if it has one.
    """
    names = (parse(key, 'mmpretrain') for key in state)
    prefixes = {name.prefix for name in names if name and name.stage is not None}
    return {place: _checked(state, place, eps) for place in sorted(prefixes)}


def _checked(state: Mapping[str, Tensor], place: str, eps: float) -> tuple[MobileOne, str | None]:
    below = {k.removeprefix(place): v for k, v in state.items() if k.startswith(place)}
    tensors = {key: value for key, value in below.items() if is_unit_key(key, 'mmpretrain')}
    parsed = ((key, parse(key, 'mmpretrain')) for key in tensors)
    names = {key: name for key, name in parsed if name and not name.prefix}
    arch = _arch(place, tensors, names)
    parts = {name.part for name in names.values()}
    deploy, scale, identity = (part in parts for part in ('fused', 'scale_norm', 'identity'))
    stems = (tensors[key] for key, name in names.items() if name.stage == 0)
    channels = next((value.shape[1] for value in stems if value.ndim == 4), 3)
    norm = dict(type='BN', eps=eps)
    with torch.device('meta'):
        model = MobileOne(
            arch, channels, norm_cfg=norm, use_scale=scale, use_identity=identity, deploy=deploy
        )
    _compare(place, tensors, model.state_dict())
    if deploy or (scale and identity):  # the public sizes have both kinds of branches
        for name, known in ARCHS.items():
            # A fused unit does not tell how many branches it had.
            branches = arch.num_conv_branches if deploy else known.num_conv_branches
            if arch == replace(known, num_conv_branches=branches):
                return model, name
    return model, None


def _arch(place: str, tensors: Mapping[str, Tensor], names: Mapping[str, TensorName]) -> Arch:
    blocks, widths, branches, squeezed = [], [], [], []
    for stage in range(1, NUM_STAGES + 1):
        own = {key: name for key, name in names.items() if name.stage == stage}
        units = _count(f'{place}stage{stage}', (name.unit for name in own.values()))
        outputs = Counter(
            tensors[key].shape[0]
            for key, name in own.items()
            if name.part in ('conv', 'fused')
            and name.tensor == 'weight'
            and (name.unit or 0) % 2
            and tensors[key].ndim
            and tensors[key].shape[0]
        )
        if units % 2 or not outputs:
            raise InputError(f"lacks '{place}stage{stage}.{units}': units come in pairs")
        conv = [name.branch for name in own.values() if name.part == 'conv']
        se = [(name.unit or 0) // 2 for name in own.values() if name.part.startswith('se_')]
        blocks.append(units // 2)
        widths.append(max(outputs, key=outputs.__getitem__))
        branches.append(_count(f'{place}stage{stage}.*.branch_conv_list', conv) if conv else 1)
        squeezed.append(units // 2 - min(se) if se else 0)
    factors = tuple(width / base for width, base in zip(widths, BASE_CHANNELS, strict=True))
    return Arch(tuple(blocks), factors, tuple(branches), tuple(squeezed))


def _count(what: str, numbers: Iterable[int | None]) -> int:
    """Count the numbers, which must begin at 0 and have no gap."""
    found = {number for number in numbers if number is not None}
    missing = next(number for number in range(len(found) + 1) if number not in found)
    if missing < len(found) or not found:
        raise InputError(f"lacks '{what}.{missing}'; the file is damaged or cut off")
    return len(found)


def _compare(prefix: str, tensors: Mapping[str, Tensor], layout: Mapping[str, Tensor]) -> None:
    for key, own in layout.items():
        if key not in tensors and not key.endswith('num_batches_tracked'):
            raise InputError(f"lacks '{prefix}{key}', which the rest of the file needs; {_DAMAGED}")
        if key in tensors and tensors[key].shape != own.shape:
            raise InputError(
                f"'{prefix}{key}' is {list(tensors[key].shape)}, {list(own.shape)} fits the rest of "
                f'the file; {_DAMAGED}'
            )
        if key in tensors and (problem := number_problem(prefix + key, tensors[key], own.dtype)):
            raise InputError(problem)
    if surplus := next((key for key in tensors if key not in layout), None):
        raise InputError(
            f"has '{prefix}{surplus}', for which a MobileOne of these units has no place; {_DAMAGED}"
        )
