"""Convert modules with re-parameterisable blocks from training form to deploy form."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..errors import InputError
from .algebra import fuse_branches
from .protocol import Reparameterizable


def unfused_blocks(model: nn.Module) -> Iterator[tuple[str, Reparameterizable]]:
    """Yield names and blocks that have branches; a shared block once."""
    for name, module in model.named_modules():
        if isinstance(module, Reparameterizable) and not module.deploy:
            yield name, module


def reparameterize_model(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Return the model with every re-parameterisable block fused into one convolution.

    The function of the model in eval mode does not change. The arithmetic is float64; the results
    have the dtype and device of the block's parameters. A trainable block stays trainable, a frozen
    block stays frozen. A fused model is returned unchanged.

    Args:
        model: Any module; blocks at any depth are fused, including shared ones.
        inplace: Change the model itself and return it, instead of a copy.

    Raises:
        ValueError: A block is in training mode.
        InputError: The weights of a block cannot be fused.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'model: got {type(model).__name__}; expected a torch.nn.Module')
    if not inplace:
        model = copy.deepcopy(model)
    # Compute all kernels before any change: an error must not leave a model that is partly fused.
    fused = []
    for name, block in unfused_blocks(model):
        norms = [branch.norm for branch in block.reparam_branches()]
        if model.training or block.training or any(norm.training for norm in norms):
            raise ValueError(
                f'model: {name or "the block"} is in training mode, where BN uses the statistics of '
                'the batch and the block is not equal to one convolution; call model.eval() first'
            )
        try:
            fused.append((block, *_fused_like(block)))
        except ValueError as error:
            raise InputError(f'model: {name or "the block"} cannot be fused: {error}') from error
    for block, kernel, bias in fused:
        block.switch_to_deploy(kernel, bias)
    return model


def _fused_like(block: Reparameterizable) -> tuple[Tensor, Tensor]:
    """Return the fused kernel and bias with dtype, device and memory format of the block."""
    branches = block.reparam_branches()
    like = next(branch.weight for branch in branches if branch.weight is not None)
    kernel, bias = (t.to(like.dtype) for t in fuse_branches(branches, block.kernel_shape))
    if not (bool(torch.isfinite(kernel).all()) and bool(torch.isfinite(bias).all())):
        advice = 'the weights are damaged' if like.dtype == torch.float32 else 'use float32'
        raise ValueError(f'weight: the fused kernel overflows {like.dtype}; {advice}')
    if like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous():
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    return kernel.to(like.device), bias.to(like.device)
