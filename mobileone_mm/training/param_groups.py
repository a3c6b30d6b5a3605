"""Parameter groups: learning rates for parts of a model that keep the rules for weight decay."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..config.tree import class_of
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # as in mmengine


def with_defaults(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of an optimizer with a missing ``lr`` or ``weight_decay`` from its class."""
    cls = class_of(optimizer)
    parameters = inspect.signature(cls).parameters if cls else {}
    defaults = {k: parameters[k].default for k in ('lr', 'weight_decay') if k in parameters}
    return {k: v for k, v in defaults.items() if isinstance(v, (int, float))} | dict(optimizer)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, in which ``lr_mult`` does not change the weight decay.

    In mmengine an entry of ``custom_keys`` replaces all other rules for the parameters that it
    matches (mmengine issue 846). With ``custom_keys=dict(head=dict(lr_mult=10))`` and
    ``norm_decay_mult=0``, the norms and biases of the head get full decay without a message. Here
    ``norm_decay_mult``, ``bias_decay_mult``, ``dwconv_decay_mult`` and ``flat_decay_mult`` apply to
    them as well, unless the entry has its own ``decay_mult``. A learning rate or weight decay that the
    config does not give is that of the optimizer.
    """

    def _validate_cfg(self) -> None:
        defaults = with_defaults(self.optimizer_cfg)
        self.base_lr, self.base_wd = defaults.get('lr'), defaults.get('weight_decay', 0.0)
        super()._validate_cfg()

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: Any = None
    ) -> None:
        """Add a group for each parameter of the module and of its children."""
        own = {id(value): name for name, value in module.named_parameters(recurse=False)}
        start = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        given: dict[str, Any] = self.paramwise_cfg
        for group in params[start:] if self.base_wd is not None else ():
            (parameter,) = group['params']
            name = own.get(id(parameter))
            custom = any(key in f'{prefix}.{name}' for key in given.get('custom_keys', {}))
            if name is None or 'decay_mult' in group or not custom:
                continue
            depthwise = isinstance(module, nn.Conv2d) and module.in_channels == module.groups
            rules = (  # the first one that applies counts, in mmengine's order
                ('norm_decay_mult', isinstance(module, NORMS)),
                ('bias_decay_mult', name == 'bias'),
                ('dwconv_decay_mult', depthwise),
                ('flat_decay_mult', parameter.ndim == 1),
            )
            for key, holds in rules:
                if holds and given.get(key) is not None:
                    group['weight_decay'] = self.base_wd * float(given[key])
                    break
