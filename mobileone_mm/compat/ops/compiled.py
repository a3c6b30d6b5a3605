"""torchvision's compiled operators, where this machine has them."""

import functools
import importlib

import torch
from torch import Tensor

from ..finders import is_stand_in


@functools.cache
def has_kernel(name: str, device: str) -> bool:
    """Return whether torchvision brings a compiled operator ``name`` for a type of device."""
    try:
        torchvision = importlib.import_module('torchvision')
    except Exception:  # a torchvision that does not import is not needed here
        return False
    key = {'cpu': 'CPU', 'cuda': 'CUDA'}.get(device)
    return (
        key is not None
        and not is_stand_in(torchvision)
        and hasattr(torch.ops.torchvision, name)
        and torch._C._dispatch_has_kernel_for_dispatch_key(f'torchvision::{name}', key)
    )


def at_least_float(tensor: Tensor) -> Tensor:
    """Return float64 tensors as they are and all others as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
