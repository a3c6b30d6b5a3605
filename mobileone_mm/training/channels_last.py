"""The channels-last memory format (NHWC), in which many convolutions are faster, for a whole model."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.block import SubsampledConv2d

KEY = 'channels_last'


def is_enabled(setting: Any) -> bool:
    """Return whether a config enables the format by its value of ``channels_last``, if any."""
    if setting is not None and not isinstance(setting, bool):
        raise InputError(f'{KEY}: got {setting!r}; expected True or False')
    return bool(setting)


def use_channels_last(model: nn.Module, device: str) -> None:
    """Convert the weights of a model now, and the inputs of its backbones at each call.

    Shapes, values and names stay the same. Copies of the model have the same format.

    Raises:
        InputError: The model has no backbone with 2-D convolutions, or one whose gradient torch
            computes incorrectly on this device.
    """
    backbones = [
        module
        for name, module in model.named_modules()
        if name.rpartition('.')[2] == 'backbone'
        and any(isinstance(part, nn.Conv2d) for part in module.modules())
    ]
    if not backbones:
        raise InputError(
            f'{KEY}: {type(model).__name__} has no backbone with 2-D convolutions; remove the setting'
        )
    if device == 'cpu':
        _check_strided(model)
    for backbone in backbones:
        if not _converts(backbone):
            backbone.register_forward_pre_hook(_to_channels_last)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def restore_format(model: nn.Module) -> None:
    """Convert new weights of a model that uses channels_last; leave any other model unchanged."""
    if any(_converts(module) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _to_channels_last(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.to(memory_format=torch.channels_last)
        if isinstance(value, Tensor) and value.dim() == 4
        else value
        for value in args
    )


def _converts(module: nn.Module) -> bool:
    return _to_channels_last in module._forward_pre_hooks.values()


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
                f"{KEY}: '{name}' is a strided 1x1 convolution of {part.in_channels} channels, whose "
                'gradient torch computes incorrectly in this format on a CPU; remove the setting, or '
                'use mobileone_mm.MobileOne'
            )
