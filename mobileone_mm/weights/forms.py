"""Fuse the units of a state dict, or lift fused kernels into branches.

Both work on mmpretrain's names below any prefix, in float64, and check first that each MobileOne is
complete. Other tensors (squeeze and excitation, classifier, necks, heads) stay as they are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..reparam import reparameterize_model
from ..reparam.algebra import lift_kernel
from .layout import EPS, check_units
from .names import FORM_PARTS, TensorName, parse, render

_NORM_OF = {'conv': 'conv_norm', 'scale': 'scale_norm', 'identity': 'identity'}


def fuse_state(state: Mapping[str, Tensor], eps: float = EPS) -> dict[str, Tensor]:
    """Fuse the units of a state dict in training form; the function in eval mode stays the same.

    Half precision becomes float32, because fused kernels have more digits than half precision.
    ``eps`` is that of the BN layers, which no file holds.

    Raises:
        InputError: A MobileOne is incomplete, or its weights cannot be fused.
    """
    _, fused = _split(state, 'train')
    for place, (model, _) in check_units(state, eps).items():
        own = {key: state[place + key] for key in model.state_dict() if place + key in state}
        like = next(value for key, value in own.items() if key.endswith('conv.weight'))
        model.load_state_dict(own, strict=False, assign=True)
        deployed = reparameterize_model(model.double().eval(), inplace=True)
        for key, value in deployed.state_dict().items():
            if '.branch_reparam.' in key:
                fused[place + key] = _as_stored(value, like)
    return fused


def lift_state(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], eps: float = EPS
) -> dict[str, Tensor]:
    """Lift a state dict in deploy form; the function in eval mode stays the same.

    Each fused kernel is written into the branches that the unit has in ``target``, the state dict of a
    model in training form whose BNs have ``eps``. The statistics are neutral (mean 0, variance 1).
    Measure them with :class:`~mobileone_mm.hooks.recalibrate.RecalibrateHook` before training, or the
    function changes in the first step, when BN normalises by its batch.

    Raises:
        InputError: A MobileOne is incomplete.
    """
    check_units(state)
    layout, _ = _split(target, 'train')
    units, lifted = _split(state, 'deploy')
    generator = torch.Generator().manual_seed(0)  # for branches of one kind
    for place, unit in units.items():
        own = layout.get(place, {})
        names = sorted({(name.part, name.branch) for name in own if name.part in _NORM_OF})
        kinds = [part for part, _ in names]
        if 'conv' not in kinds:  # the target lacks this unit: its keys stay, to be reported
            lifted.update({render(name, 'mmpretrain'): value for name, value in unit.items()})
            continue
        fused = {name.tensor: value for name, value in unit.items()}
        branches = lift_kernel(fused['weight'], fused['bias'], kinds, eps, generator)
        for (part, branch), lift in zip(names, branches, strict=True):
            tensors = {(_NORM_OF[part], name): value for name, value in lift.norm.items()}
            if lift.kernel is not None:
                tensors[part, 'weight'] = lift.kernel
            stored = {key: _as_stored(value, fused['weight']) for key, value in tensors.items()}
            stored[_NORM_OF[part], 'num_batches_tracked'] = torch.zeros((), dtype=torch.long)
            prefix, stage, number = place
            for (kind, tensor), value in stored.items():
                name = TensorName(stage, kind, tensor, number, branch, prefix)
                lifted[render(name, 'mmpretrain')] = value
    return lifted


def _as_stored(value: Tensor, like: Tensor) -> Tensor:
    """Return a float64 tensor in the dtype of the file, at least in float32."""
    return value.to(like.dtype if like.dtype.itemsize >= 4 else torch.float32)


def _split(
    state: Mapping[str, Tensor], form: str
) -> tuple[dict[tuple[str, int, int | None], dict[TensorName, Tensor]], dict[str, Tensor]]:
    """Split off the units of a form, by prefix, stage and unit."""
    units: dict[tuple[str, int, int | None], dict[TensorName, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for key, value in state.items():
        name = parse(key, 'mmpretrain')
        if name is None or name.stage is None or name.part not in FORM_PARTS[form]:
            rest[key] = value
        else:
            units.setdefault((name.prefix, name.stage, name.unit), {})[name] = value
    return units, rest
