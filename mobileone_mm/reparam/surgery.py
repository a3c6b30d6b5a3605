"""From training form to deploy form, for any module that contains re-parameterisable blocks."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .algebra import fuse_branches
from .protocol import Reparameterizable


def unfused_blocks(model: nn.Module) -> Iterator[tuple[str, Reparameterizable]]:
    """Blocks of the model that still have branches, with their names; a shared one comes once."""
    for name, module in model.named_modules():
        if isinstance(module, Reparameterizable) and not module.deploy:
            yield name, module


def reparameterize_model(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Return the model with every re-parameterisable block fused into one convolution.

    The function of the model in eval mode does not change. The arithmetic is in float64; results
    take the dtype and device of the block's parameters. A block that can be trained stays
    trainable, a frozen one stays frozen. A model that is fused already comes back as it is.

    Args:
        model: Any module; blocks are found at any depth, modules that occur several times included.
        inplace: Change the model itself and return it; else a copy is changed.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: A block is in training mode (it then normalises by the statistics of the batch,
            which no fixed kernel can express), or its weights cannot be fused.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'model: got {type(model).__name__}; a torch.nn.Module is needed')
    for name, block in unfused_blocks(model):
        norms = [branch.norm for branch in block.reparam_branches()]
        if model.training or block.training or any(norm.training for norm in norms):
            raise ValueError(
                f'model: {name or "the block"} is in training mode, where BN uses the statistics of '
                'the batch and no single convolution is equal to it; call model.eval() first'
            )
    if not inplace:
        model = copy.deepcopy(model)
    # Compute all before changing any: a block that cannot be fused must not leave half a model.
    fused = []
    for name, block in unfused_blocks(model):
        try:
            fused.append((block, *_fused_like(block)))
        except ValueError as error:
            raise ValueError(f'model: {name or "the block"} cannot be fused: {error}') from error
    for block, kernel, bias in fused:
        block.switch_to_deploy(kernel, bias)
    return model


def _fused_like(block: Reparameterizable) -> tuple[Tensor, Tensor]:
    """Fused kernel and bias with dtype, device and memory format of the block's kernels."""
    branches = block.reparam_branches()
    like = next(branch.weight for branch in branches if branch.weight is not None)
    kernel, bias = (t.to(like.dtype) for t in fuse_branches(branches, block.kernel_shape))
    if not (bool(torch.isfinite(kernel).all()) and bool(torch.isfinite(bias).all())):
        raise ValueError(f'weight: the fused kernel does not fit into {like.dtype}; use float32')
    if like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous():
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    return kernel.to(like.device), bias.to(like.device)
