"""Annealed weight decay, group by group: the schedule of the ImageNet configs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper

from mobileone_mm.training.runner import Runner

from .conftest import Classifier

ROOT = Path(__file__).resolve().parents[2]
BASE = Config.fromfile(ROOT / 'configs/_base_/schedules/imagenet_300e.py')
STEPS = 12  # four epochs of three batches

pytest.importorskip('mmpretrain')


class Decays(Hook):
    """Weight decay of each parameter at every iteration; ends the run where told."""

    def __init__(self, stop=None):
        self.seen, self.stop = [], stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise KeyboardInterrupt
        of = {
            id(p): group['weight_decay']
            for group in runner.optim_wrapper.optimizer.param_groups
            for p in group['params']
        }
        self.seen.append({name: of[id(p)] for name, p in runner.model.named_parameters()})


def settings(**custom_keys):
    schedule = dict(BASE.param_scheduler[-1])
    schedule['type'] = f'mmpretrain.{schedule["type"]}'
    wrapper = BASE.optim_wrapper.to_dict()
    wrapper['paramwise_cfg']['custom_keys'] = {
        key.replace('__', '.'): dict(decay_mult=value) for key, value in custom_keys.items()
    }
    return dict(optim_wrapper=wrapper, param_scheduler=[schedule], kind=Runner, epochs=4)


MULTIPLIERS = dict(head__weight=0.5, backbone__stage4=2.0)


def expected(name, step):
    cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * step / STEPS)) / 2
    if name == 'head.weight':
        return 0.5e-4 * cosine
    if name.startswith('backbone.stage4'):
        return 2e-4 * cosine
    return 1e-4 * cosine if name.endswith('.conv.weight') or '.fc' in name else 0.0


def run(make_runner, **more):
    probe = Decays(more.pop('stop', None))
    given = settings(**MULTIPLIERS)
    given['optim_wrapper'].update(more.pop('wrapper', {}))
    runner = make_runner(probe, **given, **more)
    try:
        runner.train()
    except KeyboardInterrupt:
        assert probe.stop is not None
    return probe.seen


def check(seen, first=0):
    for step, decays in enumerate(seen, first):
        for name, value in decays.items():
            if '.se' not in name:  # its biases and weights are apart from the names above
                assert value == pytest.approx(expected(name, step), rel=1e-4), (step, name)


def test_every_group_has_its_cosine(make_runner):
    """By iteration; a group at half the decay ends at half of 1e-5, BN and biases have none."""
    seen = run(make_runner)
    assert len(seen) == STEPS
    check(seen)
    last = seen[-1]
    assert last['head.weight'] == pytest.approx(0.5e-4 * (0.1 + 0.9 * 0.01704), rel=1e-3)
    assert 0 == last['head.bias'] == last['backbone.stage1.0.branch_conv_list.0.norm.weight']


def test_accumulation(make_runner):
    """The schedule counts iterations, not steps of the optimizer."""
    assert run(make_runner, wrapper=dict(accumulative_counts=3)) == run(make_runner, name='other')


def test_resume(make_runner, tmp_path):
    """Stopped in the third epoch, it goes on from the second as if nothing had happened."""
    unbroken = run(make_runner, name='unbroken')
    assert len(run(make_runner, name='broken', stop=8)) == 8
    rest = run(make_runner, name='broken', resume=True,
               load_from=str(tmp_path / 'broken' / 'epoch_2.pth'))  # fmt: skip
    assert rest == unbroken[6:]
    check(rest, 6)


def test_an_absolute_end_would_not_do(make_runner):
    """Why the configs give a ratio: with eta_min all groups with decay end at the same value."""
    given = settings(**MULTIPLIERS)
    given['param_scheduler'][0].pop('eta_min_ratio')
    given['param_scheduler'][0]['eta_min'] = 1e-5
    probe = Decays()
    make_runner(probe, **given).train()
    with pytest.raises(AssertionError):
        check(probe.seen)


def test_custom_keys_drop_the_rules_for_norms():
    """mmengine #846: a rate for a part of the net gives decay to its BN and biases."""

    def decays(**paramwise):
        wrapper = BASE.optim_wrapper.to_dict()
        wrapper['paramwise_cfg'].update(paramwise)
        model = Classifier()
        groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
        of = {id(p): group['weight_decay'] for group in groups for p in group['params']}
        return {name: of[id(p)] for name, p in model.named_parameters()}

    norm = 'backbone.stage4.0.branch_conv_list.0.norm.weight'
    assert decays()[norm] == decays()['head.bias'] == 0
    trap = decays(custom_keys={'backbone.stage4': dict(lr_mult=0.1), 'head': dict(lr_mult=10)})
    assert trap[norm] == trap['head.bias'] == 1e-4
    # What docs/imagenet.md says: one entry for each kind of parameter, with its decay.
    apart = {
        'head.weight': dict(lr_mult=10),
        'head.bias': dict(lr_mult=10, decay_mult=0),
    }
    assert decays(custom_keys=apart) == decays()
