"""Fuse the units of a state dict, or lift fused kernels into branches.

Both work on mmpretrain's names below any prefix, in float64. Other tensors (squeeze and excitation,
classifier, necks, heads) stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..reparam import Branch
from ..reparam.algebra import fuse_branches, lift_kernel
from .names import FORM_PARTS, TensorName, parse, render

EPS = 1e-5  # of every public MobileOne
_NORM_OF = {'conv': 'conv_norm', 'scale': 'scale_norm', 'identity': 'identity'}

#: prefix, stage and unit: where a unit is in a state dict
Place = tuple[str, int, int | None]
#: tensors of a unit by part, branch and name
Unit = dict[tuple[str, int | None, str], Tensor]


def fuse_state(state: Mapping[str, Tensor], eps: float = EPS) -> dict[str, Tensor]:
    """Fuse the units of a state dict in training form; the function in eval mode stays the same.

    Half precision becomes float32, because fused kernels have more digits than half precision.
    ``eps`` is that of the BN layers, which no file holds.

    Raises:
        InputError: A unit is incomplete, or its weights cannot be fused.
    """
    units, fused = _split(state, 'train')
    for place, unit in units.items():
        try:
            kernel, bias = _fuse(unit, eps)
        except (KeyError, ValueError, RuntimeError) as error:
            stage = _key(place, 'fused', 'weight').rpartition('.branch_reparam')[0]
            raise InputError(f"'{stage}' cannot be fused: {error}") from error
        like = next(value for (part, *_), value in unit.items() if part == 'conv')
        for tensor, value in (('weight', kernel), ('bias', bias)):
            fused[_key(place, 'fused', tensor)] = _as_stored(value, like)
    return fused


def lift_state(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], eps: float = EPS
) -> dict[str, Tensor]:
    """Lift a state dict in deploy form; the function in eval mode stays the same.

    Each fused kernel is written into the branches that the unit has in ``target``; see
    :func:`~mobileone_mm.reparam.algebra.lift_kernel`. The statistics are neutral (mean 0, variance 1).
    Measure them with :class:`~mobileone_mm.hooks.recalibrate.RecalibrateHook` before training, or the
    function changes in the first step, when BN normalises by its batch.

    Args:
        target: State dict of the model in training form; only its keys count.
        eps: Epsilon of the BN layers of the model.

    Raises:
        InputError: A unit lacks its kernel or its bias.
    """
    layout, _ = _split(target, 'train')
    units, lifted = _split(state, 'deploy')
    generator = torch.Generator().manual_seed(0)  # for branches of one kind
    for place, unit in units.items():
        for tensor in ('weight', 'bias'):
            if ('fused', None, tensor) not in unit:
                key = _key(place, 'fused', tensor)
                raise InputError(f"lacks '{key}'; the file is damaged or no MobileOne")
        kernel, bias = unit['fused', None, 'weight'], unit['fused', None, 'bias']
        names = _branches(layout.get(place, {}))
        kinds = [part for part, _ in names]
        if 'conv' not in kinds:  # the target lacks this unit: its keys stay, to be reported
            lifted.update({_key(place, *name[::2], name[1]): value for name, value in unit.items()})
            continue
        values = lift_kernel(kernel, bias, kinds, eps, generator)
        for (part, branch), lift in zip(names, values, strict=True):
            if lift.kernel is not None:
                lifted[_key(place, part, 'weight', branch)] = _as_stored(lift.kernel, kernel)
            norm = {name: _as_stored(value, kernel) for name, value in lift.norm.items()}
            norm['num_batches_tracked'] = torch.zeros((), dtype=torch.long)
            for name, value in norm.items():
                lifted[_key(place, _NORM_OF[part], name, branch)] = value
    return lifted


def _as_stored(value: Tensor, like: Tensor) -> Tensor:
    """Return a float64 tensor in the dtype of the file, at least in float32."""
    return value.to(like.dtype if like.dtype.itemsize >= 4 else torch.float32)


def _fuse(unit: Unit, eps: float) -> tuple[Tensor, Tensor]:
    branches = []
    for part, branch in _branches(unit):
        names = ('weight', 'bias', 'running_mean', 'running_var')
        norm: Any = SimpleNamespace(
            eps=eps, **{name: unit[_NORM_OF[part], branch, name] for name in names}
        )
        weight = None if part == 'identity' else unit[part, branch, 'weight']
        branches.append(Branch(norm, weight))
    if ('conv', 0) not in _branches(unit):
        raise ValueError('it has no conv branch')
    return fuse_branches(branches, tuple(unit['conv', 0, 'weight'].shape))  # type: ignore[arg-type]


def _branches(unit: Unit) -> list[tuple[str, int | None]]:
    return sorted({(part, branch) for part, branch, _ in unit if part in _NORM_OF})


def _split(state: Mapping[str, Tensor], form: str) -> tuple[dict[Place, Unit], dict[str, Tensor]]:
    """Split off the units of a form."""
    units: dict[Place, Unit] = {}
    rest: dict[str, Tensor] = {}
    for key, value in state.items():
        name = parse(key, 'mmpretrain')
        if name is None or name.stage is None or name.part not in FORM_PARTS[form]:
            rest[key] = value
        else:
            place = name.prefix, name.stage, name.unit
            units.setdefault(place, {})[name.part, name.branch, name.tensor] = value
    return units, rest


def _key(place: Place, part: str, tensor: str, branch: int | None = None) -> str:
    prefix, stage, unit = place
    return render(TensorName(stage, part, tensor, unit, branch, prefix), 'mmpretrain')
