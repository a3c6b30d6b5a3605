"""What the hooks about the two forms need of a model."""

from __future__ import annotations

from torch import nn

from ..errors import InputError
from ..reparam import Reparameterizable


def require_units(model: nn.Module, hook: str) -> None:
    """Check that a model has something to fuse, fused already or not.

    Args:
        model: The model of the run.
        hook: Name of the hook that asks.

    Raises:
        InputError: It has no re-parameterisable unit.
    """
    if not any(isinstance(module, Reparameterizable) for module in model.modules()):
        raise InputError(
            f'custom_hooks: {hook} needs a MobileOne of this package in the model; set '
            "type='mobileone_mm.MobileOne' in the backbone, or leave the hook out"
        )
