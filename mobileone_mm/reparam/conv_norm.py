"""Convolutions (or linear layers) followed by a batch normalisation: finding and folding them.

PyTorch has ``fuse_conv_bn_eval`` and mmcv has ``fuse_conv_bn``; both work in the weights' own dtype,
the latter folds whatever convolution came last before a BN in the order of registration, used or not,
and turns a convolution that several BNs share into the product of all of them. Here a pair is a pair
only if its parent says so, nothing else uses the convolution, and the arithmetic is float64.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .algebra import norm_to_affine
from .protocol import Reparameterizable


class ConvNorm(NamedTuple):
    """A layer and the BN behind it, by name.

    Attributes:
        parent: The module that holds and runs both.
        layer: Convolution, transposed convolution or linear layer.
        norm: The BN.
    """

    parent: str
    layer: str
    norm: str


class Found(NamedTuple):
    """What :func:`find_conv_norms` returns.

    Attributes:
        pairs: What can be folded.
        left: Names of BNs that cannot be, with the reason.
    """

    pairs: list[ConvNorm]
    left: dict[str, str]


def outer_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules outside re-parameterisable blocks, under each of their names."""
    inside: tuple[str, ...] = ('\0',)
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(inside):
            continue
        if isinstance(module, Reparameterizable):
            inside += (f'{name}.',)
        else:
            yield name, module


def find_conv_norms(model: nn.Module) -> Found:
    """Find the layers outside re-parameterisable blocks that a BN follows at once.

    A parent with mmcv's ``order`` (ConvModule) says what follows what. In a Sequential it is the
    neighbour; any other parent must have exactly one layer that fits. That the parent really runs one
    after the other is for the caller to prove.
    """
    modules = dict(outer_modules(model))
    pairs: list[ConvNorm] = []
    left: dict[str, str] = {}
    for name, norm in modules.items():
        if not isinstance(norm, _BatchNorm):
            continue
        parent = name.rpartition('.')[0]
        layer = _layer_before(modules[parent], norm) if name else 'is the whole model'
        if layer in modules[parent]._modules:
            reason = _obstacle(modules[parent]._modules[layer], norm)
            layer = f'{parent}.{layer}'.removeprefix('.')
        else:
            reason = layer
        if reason:
            left[name] = reason
        else:
            pairs.append(ConvNorm(parent, layer, name))
    return _without_shared(modules, pairs, left)


def fold_norm(layer: nn.Module, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Kernel and bias (float64, CPU) of one layer equal to a layer and the BN behind it.

    Args:
        layer: A convolution, a transposed convolution or a linear layer.
        norm: A BN with running statistics, in eval mode.

    Raises:
        ValueError: The norm cannot be folded, or a weight holds NaN or Inf.
    """
    scale, shift = norm_to_affine(norm)
    weight: Tensor = layer.weight.detach().cpu().double()  # type: ignore[operator,union-attr,assignment]
    if isinstance(layer, _ConvTransposeNd):
        # (in, out / groups, ...): the inputs of a group see its outputs only.
        inputs, outputs = weight.shape[0] // layer.groups, weight.shape[1]
        rows = scale.reshape(layer.groups, 1, outputs).expand(layer.groups, inputs, outputs)
        factor = rows.reshape(weight.shape[0], outputs, *[1] * (weight.ndim - 2))
    else:
        factor = scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = shift
    if isinstance(layer.bias, Tensor):
        bias = bias + layer.bias.detach().cpu().double() * scale
    weight = weight * factor
    if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
        raise ValueError('weight: holds NaN or Inf; the weights are broken')
    return weight, bias


def folded_tensors(
    model: nn.Module, pairs: Iterable[ConvNorm], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the kernels and biases that folding gives.

    Args:
        model: The model that holds the pairs; it is not changed.
        pairs: As :func:`find_conv_norms` found them.
        dtype: Of the result, by default that of the layer; the arithmetic is float64 in any case.

    Raises:
        ValueError: A pair cannot be folded, or does not fit into the dtype.
    """
    for pair in pairs:
        layer: Any = model.get_submodule(pair.layer)
        norm: Any = model.get_submodule(pair.norm)
        for name, exact in zip(('weight', 'bias'), fold_norm(layer, norm), strict=True):
            value = exact.to(dtype or layer.weight.dtype)
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f'{pair.layer}: the folded {name} does not fit into {value.dtype}')
            yield f'{pair.layer}.{name}', value


def _layer_before(parent: nn.Module, norm: _BatchNorm) -> str:
    """Name of the child that the norm follows, or why there is none."""
    children = parent._modules
    order = getattr(parent, 'order', None)
    if isinstance(order, (tuple, list)) and 'conv' in order and 'conv' in children:
        place = list(order).index('norm')
        before = list(order)[:place]
        if 'conv' not in before:
            return 'stands before its convolution'
        if before[-1] != 'conv' and getattr(parent, 'with_activation', True):
            return 'stands behind an activation'
        return 'conv'
    names = list(children)
    if isinstance(parent, nn.Sequential):
        place = next(i for i, name in enumerate(names) if children[name] is norm)
        if place and isinstance(children[names[place - 1]], (_ConvNd, nn.Linear)):
            return names[place - 1]
        return 'is not behind a convolution'
    fitting = [
        name
        for name, child in children.items()
        if isinstance(child, (_ConvNd, nn.Linear)) and _outputs(child) == norm.num_features
    ]
    if len(fitting) == 1 and sum(isinstance(c, _BatchNorm) for c in children.values()) == 1:
        return fitting[0]
    return 'is not behind a convolution of its own'


def _obstacle(layer: nn.Module | None, norm: _BatchNorm) -> str | None:
    """Why this layer and norm cannot be folded, if so."""
    if not isinstance(layer, (_ConvNd, nn.Linear)):
        return f'is behind a {type(layer).__name__}, which is no plain convolution'
    if not isinstance(layer.weight, nn.Parameter) or layer._forward_pre_hooks:
        return 'is behind a layer whose weight is computed (spectral norm, parametrisation)'
    if _outputs(layer) != norm.num_features:
        return 'stands before its convolution'
    try:
        norm_to_affine(norm)
    except ValueError as error:
        return str(error).removeprefix('norm: ')
    return None


def _without_shared(
    modules: Mapping[str, nn.Module], pairs: list[ConvNorm], left: dict[str, str]
) -> Found:
    """Leave pairs whose layer is also used with another norm, or with none."""
    uses: dict[int, list[str]] = defaultdict(list)
    for name, module in modules.items():
        if isinstance(getattr(module, 'weight', None), Tensor):
            uses[id(module.weight)].append(name)
    norm_of = {pair.layer: id(modules[pair.norm]) for pair in pairs}
    kept = []
    for pair in pairs:
        weight: Any = modules[pair.layer].weight
        users = {norm_of.get(name) for name in uses[id(weight)]}
        if len(users) == 1:
            kept.append(pair)
        elif None in users:
            left[pair.norm] = 'is behind a convolution that is also used without it'
        else:
            left[pair.norm] = f'shares its convolution with {len(users) - 1} other BN'
    return Found(kept, left)


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]
