"""The model of a run: without the wrapper for several devices, and with units to fuse."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn

from ..errors import InputError
from ..reparam import Reparameterizable


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper for several devices, or the model itself."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def require_units(model: nn.Module, hook: str) -> None:
    """Check that a model has at least one re-parameterisable unit, in either form.

    Args:
        model: The model of the run.
        hook: Name of the hook that needs the unit, for the message.

    Raises:
        InputError: The model has no such unit.
    """
    if not any(isinstance(module, Reparameterizable) for module in model.modules()):
        raise InputError(
            f'custom_hooks: {hook} expects a MobileOne of this package in the model; set '
            "type='mobileone_mm.MobileOne' in the backbone, or remove the hook"
        )
