"""What tests of many folders use."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def randomize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Set random weights *and* random BN statistics in place, and return the module.

    With fresh statistics (mean 0, variance 1) BN is almost the identity, so a test would not see a
    wrong fusion. Kernels have a standard deviation of 1 / sqrt(fan in), so that activations stay in
    range.
    """
    generator = torch.Generator().manual_seed(seed)
    of_norms = dict(
        weight=(0.1, 0.6), bias=(-0.3, 0.3), running_mean=(-0.5, 0.5), running_var=(0.5, 2.0)
    )
    for child in module.modules():
        is_norm = isinstance(child, _BatchNorm)
        for tensor in child.parameters(recurse=False):
            if tensor.ndim >= 2:
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(noise / max(1, tensor[0].numel()) ** 0.5)
        for name, (low, high) in (of_norms if is_norm else dict(bias=(-0.2, 0.2))).items():
            value = getattr(child, name, None)
            if isinstance(value, Tensor):
                noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                value.copy_(noise * (high - low) + low)
    return module
