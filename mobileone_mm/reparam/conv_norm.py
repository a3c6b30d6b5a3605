"""Find convolutions (or linear layers) that a batch normalisation follows, and fold the BN into them.

PyTorch has ``fuse_conv_bn_eval`` and mmcv has ``fuse_conv_bn``. Both compute in the dtype of the
weights. mmcv's folds a BN into the convolution that was registered before it, even if the forward
pass does not use it, and folds all BN layers that share a convolution into it. Here the parent must
say that the BN follows, nothing else may use the convolution, and the arithmetic is float64.
"""

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
    """Names of a layer and of the BN that follows it."""

    parent: str  # the module that contains and runs both
    layer: str  # convolution, transposed convolution or linear layer
    norm: str


class Found(NamedTuple):
    """The result of :func:`find_conv_norms`."""

    pairs: list[ConvNorm]  # those that can be folded
    left: dict[str, str]  # the BN layers that cannot be folded, with the reason


def outer_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules outside re-parameterisable blocks, a shared one under each of its names."""
    inside: tuple[str, ...] = ('\0',)
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(inside):
            continue
        if isinstance(module, Reparameterizable):
            inside += (f'{name}.',)
        else:
            yield name, module


def find_conv_norms(model: nn.Module) -> Found:
    """Find the layers outside re-parameterisable blocks that a BN follows directly.

    mmcv's ConvModule has an ``order``, and in a Sequential the BN follows its neighbour. Any other
    parent must have exactly one BN and one layer with the channels of the BN. The caller must prove
    that the parent runs the two in this order.
    """
    modules = dict(outer_modules(model))
    pairs: list[ConvNorm] = []
    left: dict[str, str] = {}
    for name, norm in modules.items():
        if isinstance(norm, _BatchNorm):
            parent = name.rpartition('.')[0]
            try:
                layer = _layer_before(modules[parent], norm)
                _check_foldable(modules[parent]._modules[layer], norm)
            except ValueError as error:
                left[name] = str(error).removeprefix('norm: ')
            else:
                pairs.append(ConvNorm(parent, f'{parent}.{layer}'.removeprefix('.'), name))
    return _without_shared(modules, pairs, left)


def fold_norm(layer: Any, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return kernel and bias (float64, CPU) of one layer equal to a layer and the BN after it.

    The layer is a convolution, a transposed convolution or a linear layer; the norm has running
    statistics and is in eval mode. What cannot be folded, or contains NaN or Inf, is a ValueError.
    """
    scale, shift = norm_to_affine(norm)
    weight: Tensor = layer.weight.detach().cpu().double()
    if isinstance(layer, _ConvTransposeNd):
        # (in, out / groups, ...): the inputs of a group are connected to its outputs only.
        inputs, outputs = weight.shape[0] // layer.groups, weight.shape[1]
        rows = scale.reshape(layer.groups, 1, outputs).expand(layer.groups, inputs, outputs)
        factor = rows.reshape(weight.shape[0], outputs, *[1] * (weight.ndim - 2))
    else:
        factor = scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = shift if layer.bias is None else shift + layer.bias.detach().cpu().double() * scale
    weight = weight * factor
    if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
        raise ValueError('weight: contains NaN or Inf; the weights are corrupt')
    return weight, bias


def folded_tensors(
    model: nn.Module, pairs: Iterable[ConvNorm], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield names and values of the folded kernels and biases; the model is not changed.

    They have the dtype of the layer, or the given one. A pair that cannot be folded, and a value that
    overflows the dtype, are a ValueError.
    """
    for pair in pairs:
        layer: Any = model.get_submodule(pair.layer)
        norm: Any = model.get_submodule(pair.norm)
        for name, exact in zip(('weight', 'bias'), fold_norm(layer, norm), strict=True):
            value = exact.to(dtype or layer.weight.dtype)
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f'{pair.layer}: the folded {name} overflows {value.dtype}')
            yield f'{pair.layer}.{name}', value


def _layer_before(parent: nn.Module, norm: _BatchNorm) -> str:
    """Return the name of the child that the norm follows; a ValueError has the reason if none is."""
    children = parent._modules
    if parent is norm:
        raise ValueError('is the whole model')
    order = getattr(parent, 'order', None)
    if isinstance(order, (tuple, list)) and 'conv' in order and 'conv' in children:
        before = order[: order.index('norm')]
        if 'conv' not in before:
            raise ValueError('precedes its convolution')
        if before[-1] != 'conv' and getattr(parent, 'with_activation', True):
            raise ValueError('follows an activation')
        return 'conv'
    layers = [name for name, child in children.items() if isinstance(child, (_ConvNd, nn.Linear))]
    if isinstance(parent, nn.Sequential):
        names = list(children)
        place = next(i for i, name in enumerate(names) if children[name] is norm)
        if place and names[place - 1] in layers:
            return names[place - 1]
        raise ValueError('does not follow a convolution')
    fitting = [name for name in layers if _outputs(children[name]) == norm.num_features]
    if len(fitting) == 1 and sum(isinstance(c, _BatchNorm) for c in children.values()) == 1:
        return fitting[0]
    raise ValueError('does not follow a convolution of its own')


def _check_foldable(layer: nn.Module | None, norm: _BatchNorm) -> None:
    """Raise a ValueError with the reason if this norm cannot be folded into this layer."""
    if not isinstance(layer, (_ConvNd, nn.Linear)):
        raise ValueError(f'follows a {type(layer).__name__}, which is not a plain convolution')
    if not isinstance(layer.weight, nn.Parameter) or layer._forward_pre_hooks:
        raise ValueError('follows a layer whose weight is computed (parametrisation)')
    if _outputs(layer) != norm.num_features:
        raise ValueError('precedes its convolution')
    norm_to_affine(norm)


def _without_shared(
    modules: Mapping[str, nn.Module], pairs: list[ConvNorm], left: dict[str, str]
) -> Found:
    """Remove the pairs whose layer is also used with another norm or without one."""
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
            left[pair.norm] = 'follows a convolution that is also used without it'
        else:
            left[pair.norm] = f'shares its convolution with {len(users) - 1} other BN'
    return Found(kept, left)


def _outputs(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
