"""Annealed weight decay, group by group: the schedule of the ImageNet configs."""

import math
from contextlib import nullcontext

import pytest
from mmengine.config import Config

from helpers import ROOT
from mobileone_mm.training.runner import Runner

from .conftest import Do, rates_of

BASE = Config.fromfile(ROOT / 'configs/_base_/schedules/imagenet_300e.py')
STEPS = 12  # four epochs of three batches


def expected(name, step):
    cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * step / STEPS)) / 2
    if name == 'head.weight':
        return 0.5e-4 * cosine
    if name.startswith('backbone.stage4'):
        return 2e-4 * cosine
    return 1e-4 * cosine if name.endswith('.conv.weight') or '.fc' in name else 0.0


def run(make_runner, stop=None, wrapper=None, **more):
    """The weight decay of each parameter at every iteration of a run, which ends where told."""
    seen = []

    def probe(runner):
        if runner.iter == stop:
            raise KeyboardInterrupt
        rates = rates_of(runner.model, runner.optim_wrapper)
        seen.append({name: decay for name, (_, decay) in rates.items()})

    schedule = dict(BASE.param_scheduler[-1])
    schedule['type'] = f'mmpretrain.{schedule["type"]}'
    optim_wrapper = {**BASE.optim_wrapper.to_dict(), **(wrapper or {})}
    optim_wrapper['paramwise_cfg']['custom_keys'] = {
        'head.weight': dict(decay_mult=0.5), 'backbone.stage4': dict(decay_mult=2.0),
    }  # fmt: skip
    given = dict(optim_wrapper=optim_wrapper, param_scheduler=[schedule])
    runner = make_runner(Do('before_train_iter', probe), kind=Runner, epochs=4, **given, **more)
    with nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
        runner.train()
    return seen


def test_every_group_has_its_cosine(make_runner, tmp_path):
    """A group at half the decay ends at half of 1e-5, BN and biases have none."""
    seen = run(make_runner)
    assert len(seen) == STEPS
    for step, decays in enumerate(seen):
        for name, value in decays.items():
            if '.se' not in name:  # its biases and weights are apart from the names above
                assert value == pytest.approx(expected(name, step), rel=1e-4), (step, name)
    # By iteration, not by step of the optimizer.
    assert run(make_runner, wrapper=dict(accumulative_counts=3), name='accumulated') == seen
    # Stopped in the third epoch, a run goes on from the second as if nothing had happened.
    assert len(run(make_runner, name='broken', stop=8)) == 8
    resume = dict(resume=True, load_from=str(tmp_path / 'broken' / 'epoch_2.pth'))
    assert run(make_runner, name='broken', **resume) == seen[6:]
