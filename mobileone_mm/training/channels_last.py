"""The channels-last memory format (NHWC), in which many convolutions are faster, for a whole model."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.block import SubsampledConv2d


def use_channels_last(model: nn.Module, device: str) -> None:
    """Convert the weights of a model now, and the inputs of its backbones at each call.

    Shapes, values and names stay the same. Copies of the model have the same format. An InputError
    names a model without 2-D convolutions, or with one whose gradient torch computes incorrectly.
    """
    backbones = [
        module
        for name, module in model.named_modules()
        if name.rpartition('.')[2] == 'backbone'
        and any(isinstance(part, nn.Conv2d) for part in module.modules())
    ]
    if not backbones:
        raise InputError(
            f'channels_last: {type(model).__name__} has no backbone with 2-D convolutions; remove it'
        )
    if device == 'cpu':
        _check_strided(model)
    for backbone in backbones:
        if not _converts(backbone):
            backbone.register_forward_pre_hook(_convert_inputs)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def restore_format(model: nn.Module) -> None:
    """Convert new weights of a model that uses channels_last; leave any other model unchanged."""
    if any(_converts(module) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _convert_inputs(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    images = [isinstance(value, Tensor) and value.dim() == 4 for value in args]
    return tuple(
        value.to(memory_format=torch.channels_last) if image else value
        for value, image in zip(args, images, strict=True)
    )


def _converts(module: nn.Module) -> bool:
    return _convert_inputs in module._forward_pre_hooks.values()


def _check_strided(model: nn.Module) -> None:
    """Refuse what torch 2.13's CPU build computes incorrectly; see ``SubsampledConv2d``."""
    for name, part in model.named_modules():
        if (
            isinstance(part, nn.Conv2d)
            and not isinstance(part, SubsampledConv2d)
            and part.weight.requires_grad
            and set(part.kernel_size) == {1}
            and max(part.stride) > 1
            and part.in_channels in (3, 4)
        ):
            raise InputError(
                f"channels_last: '{name}' is a strided 1x1 convolution of {part.in_channels} channels, "
                'whose gradient torch computes incorrectly in this format on a CPU; remove the '
                'setting, or use mobileone_mm.MobileOne'
            )
