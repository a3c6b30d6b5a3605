"""The model of a run: without the wrapper for several devices, and with units to fuse."""

from collections.abc import Iterator
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from ..errors import InputError
from ..reparam import Reparameterizable


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper for several devices, or the model itself."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def datasets_inside(dataset: Any) -> Iterator[Any]:
    """Yield the datasets with a pipeline: a dataset itself, and those inside wrappers."""
    if hasattr(dataset, 'pipeline'):
        yield dataset
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            yield from datasets_inside(part)


def has_branches(model: nn.Module, hook: str) -> bool:
    """Return whether units of a model have branches; without units, an InputError names the hook."""
    units = [module for module in model.modules() if isinstance(module, Reparameterizable)]
    if not units:
        raise InputError(
            f'custom_hooks: {hook} expects a MobileOne of this package in the model; set '
            "type='mobileone_mm.MobileOne' in the backbone, or remove the hook"
        )
    return not all(unit.deploy for unit in units)
