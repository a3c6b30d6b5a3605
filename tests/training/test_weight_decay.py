"""Annealed weight decay, group by group: the schedule of the ImageNet configs."""

import math
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from mobileone_mm.training.runner import Runner

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


def expected(name, step):
    cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * step / STEPS)) / 2
    if name == 'head.weight':
        return 0.5e-4 * cosine
    if name.startswith('backbone.stage4'):
        return 2e-4 * cosine
    return 1e-4 * cosine if name.endswith('.conv.weight') or '.fc' in name else 0.0


def run(make_runner, stop=None, wrapper=None, **more):
    probe = Decays(stop)
    schedule = dict(BASE.param_scheduler[-1])
    schedule['type'] = f'mmpretrain.{schedule["type"]}'
    optim_wrapper = {**BASE.optim_wrapper.to_dict(), **(wrapper or {})}
    optim_wrapper['paramwise_cfg']['custom_keys'] = {
        'head.weight': dict(decay_mult=0.5), 'backbone.stage4': dict(decay_mult=2.0),
    }  # fmt: skip
    given = dict(optim_wrapper=optim_wrapper, param_scheduler=[schedule])
    runner = make_runner(probe, kind=Runner, epochs=4, **given, **more)
    try:
        runner.train()
    except KeyboardInterrupt:
        assert probe.stop is not None
    return probe.seen


def check(seen):
    for step, decays in enumerate(seen):
        for name, value in decays.items():
            if '.se' not in name:  # its biases and weights are apart from the names above
                assert value == pytest.approx(expected(name, step), rel=1e-4), (step, name)


def test_every_group_has_its_cosine(make_runner, tmp_path):
    """A group at half the decay ends at half of 1e-5, BN and biases have none."""
    seen = run(make_runner)
    assert len(seen) == STEPS
    check(seen)
    last = seen[-1]
    assert last['head.weight'] == pytest.approx(0.5e-4 * (0.1 + 0.9 * 0.01704), rel=1e-3)
    assert 0 == last['head.bias'] == last['backbone.stage1.0.branch_conv_list.0.norm.weight']
    # By iteration, not by step of the optimizer.
    assert run(make_runner, wrapper=dict(accumulative_counts=3), name='accumulated') == seen
    # Stopped in the third epoch, a run goes on from the second as if nothing had happened.
    assert len(run(make_runner, name='broken', stop=8)) == 8
    resume = dict(resume=True, load_from=str(tmp_path / 'broken' / 'epoch_2.pth'))
    assert run(make_runner, name='broken', **resume) == seen[6:]
