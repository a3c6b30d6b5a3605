"""Rates of parts of a model, and decay only where the recipe has it."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mobileone_mm.training.param_groups import OptimWrapperConstructor, with_defaults

from .conftest import rates_of

LR, DECAY = 0.1, 0.01
RULES = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
OURS = 'mobileone_mm.OptimWrapperConstructor'


def part():
    """Every kind of layer that has a rule."""
    layers = dict(
        conv=nn.Conv2d(3, 4, 3),
        depthwise=nn.Conv2d(4, 4, 3, groups=4),
        bn=nn.BatchNorm2d(4),
        gn=nn.GroupNorm(2, 4),
        fc=nn.Linear(4, 2),
    )
    module = nn.ModuleDict(layers)
    module.scale = nn.Parameter(torch.ones(3))
    return module


def groups(constructor=OURS, decay=DECAY, kind='SGD', **paramwise):
    """Rate and decay of each parameter."""
    optimizer = dict(type=kind, lr=LR, **({} if decay is None else dict(weight_decay=decay)))
    model = nn.ModuleDict(dict(backbone=part(), head=part(), head_norm=nn.LayerNorm(4)))
    wrapper = dict(constructor=constructor, optimizer=optimizer, paramwise_cfg=paramwise)
    return rates_of(model, build_optim_wrapper(model, wrapper))


def test_the_fault_of_the_host():
    """Why there is a constructor: the day this fails, mmengine's own will do."""
    keys = dict(head=dict(lr_mult=10.0))
    found = groups('DefaultOptimWrapperConstructor', **RULES, custom_keys=keys)
    assert found['backbone.bn.weight'][1] == 0
    assert found['head.bn.weight'][1] == DECAY


@pytest.mark.parametrize(
    'paramwise',
    [
        RULES,
        dict(norm_decay_mult=0.5),
        dict(bias_decay_mult=0.5, bias_lr_mult=2.0),
        dict(dwconv_decay_mult=0.1, flat_decay_mult=0.2),
        dict(custom_keys=dict(head=dict(lr_mult=3.0))),
    ],
)
def test_elsewhere_as_mmengine(paramwise):
    """Without both kinds of rules nothing differs."""
    assert groups(**paramwise) == groups('DefaultOptimWrapperConstructor', **paramwise)


def test_all_rules_of_decay():
    found = groups(
        norm_decay_mult=0.0, bias_decay_mult=0.5, dwconv_decay_mult=0.1, flat_decay_mult=0.2,
        custom_keys={'head': dict(lr_mult=10.0), 'head.fc': dict(decay_mult=2.0)},
    )  # fmt: skip
    rows = {
        'conv.weight': 1, 'conv.bias': 0.5, 'depthwise.weight': 0.1, 'depthwise.bias': 0.5,
        'bn.weight': 0, 'bn.bias': 0, 'gn.weight': 0, 'gn.bias': 0, 'scale': 0.2,
    }  # fmt: skip
    for name, mult in rows.items():
        assert found[f'backbone.{name}'] == pytest.approx((LR, DECAY * mult)), name
        assert found[f'head.{name}'] == pytest.approx((10 * LR, DECAY * mult)), name
    assert found['head_norm.weight'] == found['head_norm.bias'] == pytest.approx((10 * LR, 0))
    # An entry's own decay_mult counts for all that it matches, as in mmengine.
    assert found['head.fc.weight'] == found['head.fc.bias'] == pytest.approx((LR, DECAY * 2))


@pytest.mark.parametrize('kind', ['SGD', 'Rprop'])
def test_without_decay(kind):
    """By the default of the optimizer, and one that has no decay."""
    found = groups(decay=None, kind=kind, custom_keys={'': dict(lr_mult=2.0)})
    assert {decay for _, decay in found.values()} == {0}
    unknown = dict(type='NoSuchOptimizer')
    assert with_defaults(unknown) == unknown
    rules = dict(flat_decay_mult=0.5, custom_keys={'': {}})
    optimizer, params = dict(type=kind, lr=LR, weight_decay=None), []
    OptimWrapperConstructor(dict(optimizer=optimizer), rules).add_params(params, part())
    assert not any('weight_decay' in group for group in params)
