"""Weights and images with the channels last in memory, which many convolutions prefer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import InputError
from ..models.block import SubsampledConv2d

KEY = 'channels_last'


class ChannelsLastHook(Hook):
    """Keeps checkpoints in torch's usual order, so that a run with the layout and one without can read
    each other's; and converts what a resumed optimizer has read. The Runner registers it."""

    priority = 'LOWEST'  # behind EMAHook, which puts its average into the checkpoint

    def before_train(self, runner: Any) -> None:
        """Give the optimizer's state the order of its parameters."""
        state = getattr(getattr(runner.optim_wrapper, 'optimizer', None), 'state', {})
        for parameter, entries in state.items():
            for key, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:  # noqa: ARG002
        """Put the tensors of a checkpoint into the usual order."""
        for key in ('state_dict', 'ema_state_dict', 'optimizer'):
            if key in checkpoint:
                _put_in_usual_layout(checkpoint[key])


def is_asked_for(setting: Any) -> bool:
    """Whether a config asks for the layout.

    Args:
        setting: What the config has under ``channels_last``; None for nothing.

    Raises:
        InputError: It is neither True nor False.
    """
    if setting is not None and not isinstance(setting, bool):
        raise InputError(f'{KEY}: got {setting!r}; True or False is allowed')
    return bool(setting)


def use_channels_last(model: nn.Module, device: str) -> None:
    """Convert a model: its convolutions' weights now, and what comes into its backbones at each call.

    Shapes, values and names stay; only the order in memory is another. Copies of the model are in
    the same layout.

    Args:
        model: The model of a host, also inside wrappers; changed in place.
        device: Where it will run.

    Raises:
        InputError: It has no backbone with 2-D convolutions, or one whose gradient torch computes
            wrongly on this device.
    """
    backbones = [
        module
        for name, module in model.named_modules()
        if name.rpartition('.')[2] == 'backbone' and any(_convolutions(module))
    ]
    if not backbones:
        raise InputError(
            f'{KEY}: {type(model).__name__} has no backbone with convolutions to convert; leave it out'
        )
    if device == 'cpu':
        _check_strided(model)
    for backbone in backbones:
        if not _converts(backbone):
            backbone.register_forward_pre_hook(_to_channels_last)
    _convert(model, torch.channels_last)


def keep_layout(model: nn.Module) -> None:
    """Convert the weights of a model once more, if it is one for channels_last: some are new."""
    if any(_converts(module) for module in model.modules()):
        _convert(model, torch.channels_last)


@contextmanager
def usual_layout(model: nn.Module) -> Iterator[None]:
    """Within it, the weights are in torch's usual order.

    torch fills a weight with random numbers in the order of the memory: the same seed would start
    another net.
    """
    _convert(model, torch.contiguous_format)
    try:
        yield
    finally:
        keep_layout(model)


def _put_in_usual_layout(content: Any) -> None:
    """Exchange the tensors in nested dicts and lists, which the Runner has made for the file."""
    if isinstance(content, (dict, list)):
        for key, value in list(
            content.items() if isinstance(content, dict) else enumerate(content)
        ):
            if isinstance(value, Tensor):
                content[key] = value.contiguous()
            else:
                _put_in_usual_layout(value)


def _to_channels_last(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.to(memory_format=torch.channels_last)
        if isinstance(value, Tensor) and value.dim() == 4
        else value
        for value in args
    )


def _converts(module: nn.Module) -> bool:
    return _to_channels_last in module._forward_pre_hooks.values()


def _convolutions(module: nn.Module) -> Iterator[tuple[str, _ConvNd]]:
    for name, part in module.named_modules():
        if isinstance(part, _ConvNd) and part.weight.dim() == 4:
            yield name, part


def _convert(model: nn.Module, layout: torch.memory_format) -> None:
    for _, convolution in _convolutions(model):
        weight = convolution.weight
        # In place: optimizers and averages know the parameter.
        weight.data = weight.data.to(memory_format=layout)
        if weight.grad is not None:
            weight.grad = weight.grad.to(memory_format=layout)


def _check_strided(model: nn.Module) -> None:
    """torch 2.13's CPU build: a wrong gradient, or a crash; see ``SubsampledConv2d``."""
    for name, convolution in _convolutions(model):
        if (
            not isinstance(convolution, SubsampledConv2d)
            and convolution.weight.requires_grad
            and set(convolution.kernel_size) == {1}
            and max(convolution.stride) > 1
            and convolution.in_channels in (3, 4)
        ):
            raise InputError(
                f"{KEY}: '{name}' is a strided 1x1 convolution of {convolution.in_channels} channels, "
                'whose gradient torch computes wrongly in this layout on a CPU; leave it out, or take '
                'mobileone_mm.MobileOne'
            )
