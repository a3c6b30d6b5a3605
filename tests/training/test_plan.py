"""Parts of the plan of a run: counted operations, averages, and its text."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA
from mmengine.registry import MODELS, init_default_scope

from mobileone_mm.models.count import count
from mobileone_mm.reparam import reparameterize_model
from mobileone_mm.training.plan import Group, Plan, Point, _macs, ema_momentum
from mobileone_mm.training.plan_report import report


@pytest.mark.parametrize('arch', ['s0', 's4', 'mu1'])
def test_macs(arch):
    cfg = Config.fromfile(f'configs/mobileone_{arch}_in1k.py')
    init_default_scope('mmpretrain')
    model = reparameterize_model(MODELS.build(cfg.model).eval(), inplace=True)
    assert _macs(model, (64, 64)) == count(arch, input_size=64).macs


def test_averages_are_asked():
    """Both give their momentum as the weight of a one against a zero."""
    net = torch.nn.Linear(2, 2)
    for average, expected in (
        (ExponentialMovingAverage(net, momentum=0.01), 0.01),
        (MomentumAnnealingEMA(net, momentum=0.01, gamma=100), 0.5),
    ):
        hook = EMAHook()
        hook.ema_model = average
        runner = SimpleNamespace(hooks=[hook], train_dataloader=[0] * 10)
        assert ema_momentum(runner, 100) == pytest.approx(expected)
        assert int(average.steps) == 0
    assert ema_momentum(SimpleNamespace(hooks=[]), 0) is None


def test_a_report_of_several_rates():
    """Layers with rates of their own, a trap of mmengine, accumulation, many processes."""
    groups = [
        Group(dict(lr=0.1, weight_decay=1e-4), {'weights': 3}, 1000),
        Group(dict(lr=1.0, weight_decay=1e-4), {'weights': 1, 'norms': 2}, 100),
        Group(dict(lr=0.1), {'norms': 5, 'biases': 1}, 50),
    ]
    points = [Point(i, [0.1, 1.0, 0.1], [1e-4, 1e-4, 0.0], None) for i in (0, 99)]
    plan = Plan(
        1150, 1150, 25600, (8, 32, 2), 100, 100, None, groups, points, points, [], [], 'cpu'
    )
    text = report(plan, 'a title')
    assert '512 images a step: batch_size 32, processes 8, accumulative_counts 2' in text
    assert 'run    100 iterations, 50 steps of the optimizer' in text
    assert 'Some norms have weight decay, others have none' in text
    assert 'iteration  lr 1  lr 2  decay 1  decay 3' in text
    assert 'weights 1, norms 2' in text
    assert 'norms 5, biases 1' in text


def test_a_phase_begins_with_its_first_iteration():
    plan = Plan(1, 1, 1, (1, 1, 1), 10, 10, None, [], [], [], [(0, 'a'), (4, 'b')], [], 'cpu')
    assert ''.join(map(plan.phase_at, range(6))) == 'aaaabb'
