"""Fuse the units of a state dict, or lift fused kernels into branches.

Both work on mmpretrain's names below any prefix, in float64, and check first that each MobileOne is
complete. Other tensors (squeeze and excitation, classifier, necks, heads) stay as they are.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from ..reparam import reparameterize_model
from ..reparam.algebra import lift_kernel
from .layout import EPS, check_units

_BRANCH = re.compile(r'(?P<unit>.*\.)(?P<branch>branch_(?:conv_list\.\d+|scale|norm))\..*')
_KINDS = {'branch_scale': 'scale', 'branch_norm': 'identity'}


def fuse_state(state: Mapping[str, Tensor], eps: float = EPS) -> dict[str, Tensor]:
    """Fuse the units of a state dict in training form; the function in eval mode stays the same.

    Half precision becomes float32, because fused kernels have more digits than half precision.
    ``eps`` is that of the BN layers, which no file holds. An incomplete MobileOne is an InputError.
    """
    fused = dict(state)
    for place, (model, _) in check_units(state, eps).items():
        own = {key: fused.pop(place + key) for key in model.state_dict() if place + key in state}
        like = next(value for key, value in own.items() if key.endswith('conv.weight'))
        model.load_state_dict(own, strict=False, assign=True)
        reparameterize_model(model.double().eval(), inplace=True)
        for key, value in model.state_dict().items():
            fused[place + key] = own[key] if key in own else _as_stored(value, like)
    return fused


def lift_state(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], eps: float = EPS
) -> dict[str, Tensor]:
    """Lift a state dict in deploy form; the function in eval mode stays the same.

    Each fused kernel is written into the branches that the unit has in ``target``, the state dict of a
    model in training form whose BNs have ``eps``. The statistics are neutral (mean 0, variance 1).
    Measure them with :class:`~mobileone_mm.hooks.recalibrate.RecalibrateHook` before training, or the
    function changes in the first step, when BN normalises by its batch. An incomplete MobileOne is an
    InputError.
    """
    check_units(state)
    branches: dict[str, dict[str, str]] = defaultdict(dict)
    for key in target:
        if match := _BRANCH.fullmatch(key):
            branches[match['unit']][match['branch']] = _KINDS.get(match['branch'], 'conv')
    lifted = dict(state)
    generator = torch.Generator().manual_seed(0)  # for branches of one kind
    for unit, kinds in branches.items():
        if f'{unit}branch_reparam.weight' not in state:
            continue
        weight, bias = (lifted.pop(f'{unit}branch_reparam.{name}') for name in ('weight', 'bias'))
        lifts = lift_kernel(weight, bias, list(kinds.values()), eps, generator)
        for (branch, kind), lift in zip(kinds.items(), lifts, strict=True):
            norm = f'{unit}{branch}' if kind == 'identity' else f'{unit}{branch}.norm'
            lifted |= {f'{norm}.{name}': _as_stored(t, weight) for name, t in lift.norm.items()}
            lifted[f'{norm}.num_batches_tracked'] = torch.zeros((), dtype=torch.long)
            if lift.kernel is not None:
                lifted[f'{unit}{branch}.conv.weight'] = _as_stored(lift.kernel, weight)
    return lifted


def _as_stored(value: Tensor, like: Tensor) -> Tensor:
    """Return a float64 tensor in the dtype of the file, at least in float32."""
    return value.to(like.dtype if like.dtype.itemsize >= 4 else torch.float32)
