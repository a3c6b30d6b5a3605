"""Initialisers for ``init_cfg``."""

from dataclasses import dataclass

from mmengine.model import initialize, update_init_info
from torch import nn

from ..registry import WEIGHT_INITIALIZERS
from .block import MobileOneBlock
from .mobileone import DEFAULT_INIT


@WEIGHT_INITIALIZERS.register_module()
@dataclass
class NearIdentityInit:
    """Initialise a MobileOne near the identity, so that it learns from scratch within minutes.

    With the usual initialisation (Kaiming kernels, BN scale 1, shift 0), ReLU removes half of the sum
    of the branches in 43 consecutive units without a path around ReLU, and the network learns almost
    nothing in its first minutes. Here, in each unit with an identity branch, the conv and scale
    branches get a small BN scale and the identity branch gets a positive BN shift, so most values pass
    ReLU: the unit is nearly ``x -> (x - mean) / std + shift``. The other units, which change width or
    resolution, get the usual initialisation. That the repeated ReLU is the cause is an inference; the
    effect is measured (docs/results.md). It is meant for short training from scratch on small data; the
    ImageNet configs use the paper's initialisation.

    Args:
        branch_scale: BN scale of the conv and scale branches, at least 0.
        identity_shift: BN shift of the identity branch, in standard deviations of its input.
    """

    branch_scale: float = 0.2
    identity_shift: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f'{name}: got {value!r}; expected a number')
        if self.branch_scale < 0:
            raise ValueError(f'branch_scale: got {self.branch_scale}; expected at least 0')

    def __call__(self, module: nn.Module) -> None:
        initialize(module, list(DEFAULT_INIT))
        for child in module.modules():
            if isinstance(child, MobileOneBlock) and not child.deploy:
                for branch in child.reparam_branches():
                    if branch.norm.affine and branch.weight is None:
                        nn.init.constant_(branch.norm.bias, self.identity_shift)
                    elif branch.norm.affine and child.branch_norm is not None:
                        nn.init.constant_(branch.norm.weight, self.branch_scale)
        if hasattr(module, '_params_init_info'):  # mmengine logs the initialiser
            update_init_info(module, str(self))
