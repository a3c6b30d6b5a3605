"""Rates of parts of a model, and decay only where the recipe has it."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

LR, DECAY = 0.1, 0.01
RULES = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
OURS = 'mobileone_mm.OptimWrapperConstructor'


class Net(nn.Module):
    """A backbone and a head of every kind of layer that has a rule."""

    def __init__(self):
        super().__init__()
        self.backbone = self.part()
        self.head = self.part()
        self.head_norm = nn.LayerNorm(4)

    @staticmethod
    def part():
        parts = dict(
            conv=nn.Conv2d(3, 4, 3),
            depthwise=nn.Conv2d(4, 4, 3, groups=4),
            bn=nn.BatchNorm2d(4),
            gn=nn.GroupNorm(2, 4),
            fc=nn.Linear(4, 2),
        )
        module = nn.Module()
        for name, layer in parts.items():
            module.add_module(name, layer)
        module.scale = nn.Parameter(nn.init.ones_(nn.Linear(1, 3).weight[:, 0].detach()))
        return module


def groups(constructor=OURS, optimizer='AdamW', **paramwise):
    """Rate and decay of each parameter."""
    model = Net()
    settings = dict(type=optimizer, lr=LR, weight_decay=DECAY)
    wrapper = build_optim_wrapper(
        model, dict(constructor=constructor, optimizer=settings, paramwise_cfg=paramwise)
    )
    names = {id(value): name for name, value in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        (parameter,) = group['params']
        found[names[id(parameter)]] = (group['lr'], group['weight_decay'])
    assert found.keys() == dict(model.named_parameters()).keys()
    return found


def is_free(name):
    """Whether a parameter of the net is a norm's or a bias."""
    return name.endswith('bias') or 'bn.' in name or 'gn.' in name or name.startswith('head_norm')


def test_group_by_group():
    for name, (rate, decay) in groups(**RULES, custom_keys=dict(head=dict(lr_mult=10.0))).items():
        assert rate == pytest.approx(LR * (10 if name.startswith('head') else 1)), name
        assert decay == (0 if is_free(name) else DECAY), name


def test_the_fault_of_the_host():
    """Why there is a constructor: the day this fails, mmengine's own will do."""
    found = groups('DefaultOptimWrapperConstructor', **RULES,
                   custom_keys=dict(head=dict(lr_mult=10.0)))  # fmt: skip
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
        custom_keys={'head.': dict(lr_mult=10.0), 'head.fc': dict(decay_mult=2.0)},
    )  # fmt: skip
    rows = {
        'conv.weight': 1, 'conv.bias': 0.5, 'depthwise.weight': 0.1, 'depthwise.bias': 0.5,
        'bn.weight': 0, 'bn.bias': 0, 'gn.weight': 0, 'gn.bias': 0, 'scale': 0.2,
    }  # fmt: skip
    for name, mult in rows.items():
        assert found[f'backbone.{name}'] == pytest.approx((LR, DECAY * mult)), name
        assert found[f'head.{name}'] == pytest.approx((10 * LR, DECAY * mult)), name
    # An entry's own decay_mult counts for all that it matches, as in mmengine.
    assert found['head.fc.weight'] == found['head.fc.bias'] == pytest.approx((LR, DECAY * 2))


def test_without_decay():
    model = Net()
    wrapper = build_optim_wrapper(
        model,
        dict(constructor=OURS, optimizer=dict(type='SGD', lr=LR),
             paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=2.0)))),
    )  # fmt: skip
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {0}
