"""Parameter groups: learning rates for parts of a model, without decay where there was none."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn import GroupNorm, LayerNorm, Parameter
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

_NORMS = (_BatchNorm, _InstanceNorm, GroupNorm, LayerNorm)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, whose ``lr_mult`` leaves the weight decay alone.

    In mmengine an entry of ``custom_keys`` replaces all other rules for the parameters that it
    matches (mmengine issue 846): ``custom_keys=dict(head=dict(lr_mult=10))`` beside
    ``norm_decay_mult=0`` gives the norms and biases of the head full decay, and nothing says so.
    Here ``norm_decay_mult``, ``bias_decay_mult``, ``dwconv_decay_mult`` and ``flat_decay_mult`` hold
    for them too, unless the entry has a ``decay_mult`` of its own. Arguments are mmengine's.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each parameter of the module and of those below it."""
        own = {id(value): name for name, value in module.named_parameters(recurse=False)}
        start = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        if self.base_wd is None:
            return
        for group in params[start:]:
            (parameter,) = group['params']
            name = own.get(id(parameter))
            if name is None or 'decay_mult' in group or not self._is_custom(f'{prefix}.{name}'):
                continue
            mult = self._decay_mult(module, name, parameter)
            if mult is not None:
                group['weight_decay'] = self.base_wd * mult

    def _is_custom(self, name: str) -> bool:
        return any(key in name for key in self.paramwise_cfg.get('custom_keys', {}))

    def _decay_mult(self, module: nn.Module, name: str, parameter: Parameter) -> float | None:
        """The multiplier of the first rule that the parameter falls under, in mmengine's order."""
        given: dict[str, Any] = self.paramwise_cfg
        depthwise = isinstance(module, nn.Conv2d) and module.in_channels == module.groups
        rules = (
            ('norm_decay_mult', isinstance(module, _NORMS)),
            ('bias_decay_mult', name == 'bias'),
            ('dwconv_decay_mult', depthwise),
            ('flat_decay_mult', parameter.ndim == 1),
        )
        for key, holds in rules:
            if holds and given.get(key) is not None:
                return float(given[key])
        return None
