"""The plan of a run: its schedules, sizes and averages, its text and its drawing."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.figure
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import MomentumAnnealingEMA
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from torch import nn

from helpers import randomize_
from mobileone_mm.benchmark.train_step import StepCost
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.curriculum import Phase
from mobileone_mm.models.count import count
from mobileone_mm.reparam import reparameterize_model
from mobileone_mm.training import plan as planning
from mobileone_mm.training.plan import Group, Measure, Plan, Point, ema_momentum
from mobileone_mm.training.plan_report import draw, report

from .conftest import Classifier, Do


@pytest.mark.parametrize('arch', ['s0', 's4', 'mu1'])
def test_macs(arch):
    cfg = Config.fromfile(f'configs/mobileone_{arch}_in1k.py')
    init_default_scope('mmpretrain')
    model = reparameterize_model(MODELS.build(cfg.model).eval(), inplace=True)
    assert planning._macs(model, (64, 64)) == count(arch, input_size=64).macs


@pytest.mark.parametrize(
    ('begin', 'iteration', 'steps'),
    [
        ({}, 0, 1), ({}, 100, 100),
        (dict(begin_iter=1), 0, None), (dict(begin_iter=1), 1, 1),
        (dict(begin_iter=5), 4, None), (dict(begin_iter=5), 104, 100),
        (dict(begin_epoch=3), 20, None), (dict(begin_epoch=3), 21, 1),
    ],
)  # fmt: skip
def test_averages_are_asked(begin, iteration, steps):
    """Their momentum is the weight of a one against a zero."""
    hook = EMAHook(**begin)
    hook.ema_model = MomentumAnnealingEMA(nn.Linear(2, 2), momentum=0.01, gamma=100)
    runner = SimpleNamespace(hooks=[hook], train_dataloader=[0] * 10)
    expected = None if steps is None else pytest.approx(100 / (100 + steps), rel=1e-12)
    assert ema_momentum(runner, iteration) == expected
    assert int(hook.ema_model.steps) == 0
    assert ema_momentum(SimpleNamespace(hooks=[]), iteration) is None


class Unlabelled(Classifier):
    """A classifier that runs without labels."""

    def forward(self, inputs, label=None, *, mode):
        return super().forward(inputs, label, mode)


@pytest.fixture
def planned(make_runner):
    """Plan a run of the tiny classifier at its start."""
    found = []

    def plan(curriculum, *hooks, schedule, change=None, **settings):
        def make(runner):
            found.append(planning.make_plan(runner, curriculum))
            raise KeyboardInterrupt

        optimizer = dict(type='SGD', lr=0.5, weight_decay=0.25)
        settings['optim_wrapper'] = dict(optimizer=optimizer, accumulative_counts=2)
        settings.update(param_scheduler=schedule, cfg=dict(param_scheduler=schedule))
        runner = make_runner(*hooks, Do('before_train', make, 'LOW'), **settings)
        if change:
            change(runner)
        with pytest.raises(KeyboardInterrupt):
            runner.train()
        return found[-1]

    return plan


def test_a_plan_by_epoch(planned, monkeypatch):
    """Five epochs of three iterations, in two phases."""
    monkeypatch.setattr(planning, '_CURVE', 5)
    used = []
    phases = [Phase(0, 32), Phase(1, 64)]
    curriculum = SimpleNamespace(
        begins=lambda epochs: [0, epochs - 1], phases=phases, use_phase=used.append
    )
    schedule = [
        dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=9),
        dict(type='MultiStepLR', milestones=[4], gamma=0.5),
    ]
    model, average = randomize_(Unlabelled()), EMAHook()
    plan = planned(curriculum, average, schedule=schedule, epochs=5, model=model)
    assert used == [0, 1]
    assert plan.phases == [(0, phases[0]), (12, phases[1])]
    assert (plan.samples, plan.batch, plan.length) == (12, (1, 4, 2), 3)
    assert (plan.iterations, plan.epochs) == (15, 5)
    # Starts of the epochs nearest to the quarters and of the phases, end of the warm-up, last one.
    assert [point.iteration for point in plan.points] == [0, 3, 6, 8, 9, 12, 14]
    assert {point.iteration: point.lr for point in plan.curve} == {
        **{i: [pytest.approx(0.25 + 0.25 * i / 8)] for i in (0, 2, 3, 5, 6, 8)},
        9: [0.5], 11: [0.5], 12: [0.25], 14: [0.25],
    }  # fmt: skip
    assert {tuple(point.weight_decay) for point in plan.curve} == {(0.25,)}
    deployed = reparameterize_model(model.eval())
    sizes = [sum(p.numel() for p in net.parameters()) for net in (model, deployed)]
    assert [plan.parameters, plan.parameters_deploy] == sizes
    macs = [planning._macs(net, (32, 32)) for net in (model, deployed)]
    assert None not in macs
    for measure, iterations in zip(plan.measures, (12, 3), strict=True):
        assert (measure.cost.size, measure.iterations) == ((32, 32), iterations)
        assert [measure.macs, measure.macs_deploy] == macs
    assert int(average.ema_model.steps) > 10  # measured with the steps
    assert plan.device == planning._device_name(next(model.parameters()).device)


def test_a_plan_by_iteration(planned, recwarn):
    """A batch sampler, and a model that needs labels."""
    schedule = dict(type='PolyLR', by_epoch=False, end=5, eta_min=0.1)

    def change(runner):
        sampler = dict(type=torch.utils.data.BatchSampler, drop_last=False)
        runner._train_dataloader['batch_sampler'] = sampler
        runner._train_loop = dict(by_epoch=False, max_iters=7)

    plan = planned(None, schedule=schedule, change=change)
    assert (plan.length, plan.iterations, plan.epochs, plan.phases) == (7, 7, None, [])
    assert [point.iteration for point in plan.points] == [0, 1, 3, 5, 6]
    assert [point.lr for point in plan.curve] == [
        [pytest.approx(rate)] for rate in (0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1)
    ]
    assert plan.batch[1] == 4
    assert not [warning for warning in recwarn if 'scheduler.step' in str(warning.message)]
    (measure,) = plan.measures
    assert (measure.iterations, measure.macs, measure.macs_deploy) == (7, None, None)


def test_groups_of_parameters():
    """Equal settings are one group; a schedule that has begun does not count."""
    net = nn.ModuleDict(dict(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2)))
    alone = nn.Parameter(torch.ones(5))
    first, *others = [dict(params=[p]) for p in (*net.parameters(), alone)]
    optimizer = torch.optim.SGD([dict(first, lr=0.5), *others], lr=0.1)
    optimizer.param_groups[1].update(lr=0.05, initial_lr=0.1)
    runner = SimpleNamespace(model=net, optim_wrapper=OptimWrapper(optimizer))
    groups = planning.parameter_groups(runner)
    assert [(group.settings['lr'], group.parameters, group.kinds) for group in groups] == [
        (0.5, 18, {'weights': 1}), (0.1, 11, {'biases': 1, 'norms': 2, 'weights': 1}),
    ]  # fmt: skip
    assert not any({'params', 'initial_lr'} & set(group.settings) for group in groups)
    runner = SimpleNamespace(optim_wrapper=runner.optim_wrapper, hooks=[], cfg={})
    points = planning.follow(runner, [Group(dict(lr=0.5))], 1, {2, 0})
    assert points == [Point(iteration, [0.5], [0.0], None) for iteration in (0, 2)]
    with pytest.raises(InputError, match='--dry-run: the run has several optimizers'):
        planning.parameter_groups(SimpleNamespace(optim_wrapper=None))


def test_names_of_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'GPU {device.index}')
    assert planning._device_name(torch.device('cuda:1')) == 'GPU 1'
    threads = torch.get_num_threads()
    assert planning._device_name(torch.device('cpu')) == f'cpu, {threads} threads'


@pytest.fixture
def plan():
    """Five groups, of which the smallest is not shown, and two with the same rates."""
    groups = [
        Group(dict(lr=0.1, weight_decay=1e-4), {'weights': 3000}, 1000),
        Group(dict(lr=1.0, weight_decay=2e-4), {'weights': 1, 'norms': 2}, 100),
        Group(dict(lr=3.0, weight_decay=0.5), {'biases': 7}, 40),
        Group(dict(lr=0.1), {'norms': 5, 'biases': 1}, 50),
        Group(dict(lr=0.12345678, weight_decay=1.23456e-5), {'weights': 1}, 60),
    ]
    decays = [1e-4, 1e-4, 0.0, 0.0, 1e-4]
    start = Point(0, [0.1, 1.0, 3.0, 0.1, 0.2], decays, None)
    end = Point(2399, [0.12345678, 0.0, 3.0, 0.12345678, 0.2], decays, 0.012345)
    measures = [
        Measure(StepCost((32, 48), 0.01234, 0.003, 3 * 2**29), 1200, 12_600_000, None),
        Measure(StepCost((64, 64), 2.0, 0.5, None), 1201, 2_000_400_000, 1_000_000),
    ]
    return Plan(
        parameters=1150, parameters_deploy=1034, samples=25600, batch=(8, 32, 2), length=600,
        iterations=2401, epochs=4, groups=groups, points=[start, end], curve=[start, end],
        phases=[(0, Phase(0, 32, 0.5)), (1200, Phase(2, 48, 1.0))], measures=measures, device='x',
    )  # fmt: skip


REPORT = """a title

model  1,150 parameters, 1,034 in deploy form
data   25,600 images
batch  512 images a step: batch_size 32, processes 8, accumulative_counts 2
run    4 x 600 = 2,401 iterations, 1,201 steps of the optimizer

group  parameters  lr      weight decay  tensors
1      1,000       0.1     0.0001        weights 3,000
2      100         1       0.0002        weights 1, norms 2
3      40          3       0.5           biases 7
4      50          0.1     0             norms 5, biases 1
5      60          0.1235  1.235e-05     weights 1
Some norms have weight decay, others have none: entries of paramwise_cfg.custom_keys \
switch norm_decay_mult off.

epoch  iteration  lr 1    lr 2  lr 5  decay 1  decay 4  resolution  strength  EMA momentum
1      1          0.1     1     0.2   0.0001   0        32          0.5       off
4      2,400      0.1235  0     0.2   0.0001   0        48          1         0.01235

size     iterations  MMACs  deploy  s/iteration  loading  memory   time
48 x 32  1,200       13     ?       0.0123       24%      1.50 GB  0:00:15
64 x 64  1,201       2,000  1       2            25%      ?        0:40:02
About 0:40:17 on x, from a few measured steps, without validation."""


def test_a_report(plan):
    assert report(plan, 'a title') == REPORT
    (start, end), cost = plan.points, StepCost((8, 8), 0.01, 0.0, None)
    simple = replace(
        plan, epochs=None, batch=(1, 32, 1), groups=plan.groups[:2], phases=[(0, Phase(0, 32))],
        points=[start, replace(end, ema=None)], measures=[Measure(cost, 1, 1, 1)],
    )  # fmt: skip
    simple.curve = simple.points
    _, facts, groups, points, measures = report(simple, '').split('\n\n')
    assert facts.endswith('run    2,401 iterations')
    assert groups.endswith('norms 2')
    assert points.split()[:7] == ['iteration', 'lr', '1', 'lr', '2', 'decay', 'resolution']
    assert 'EMA' not in points
    assert 'About 0:00:01 on' in measures


def test_a_phase_begins_with_its_first_iteration(plan):
    plan.phases = [(0, 'a'), (4, 'b')]
    assert ''.join(map(plan.phase_at, range(6))) == 'aaaabb'
    plan.phases = []
    assert plan.phase_at(0) is None


@pytest.mark.parametrize('epochs', [4, None])
def test_a_drawing(epochs, plan, tmp_path, monkeypatch):
    """A panel for each kind of setting: its lines, limits and phases."""
    drawn = []

    class Figure(matplotlib.figure.Figure):
        def __init__(self, **kwargs):
            drawn.append(self)
            super().__init__(**kwargs)

    monkeypatch.setattr(matplotlib.figure, 'Figure', Figure)
    if not epochs:  # and an average with one momentum, which is not drawn, and no decay
        curve = [replace(point, ema=0.1, weight_decay=[0.0] * 5) for point in plan.curve]
        plan = replace(plan, epochs=None, curve=curve)
    with mpl.rc_context({'savefig.format': 'pdf', 'savefig.dpi': 50}):
        draw(plan, tmp_path / 'a.png', 'a title')
    per = 600 if epochs else 1
    panels = {
        'lr': {'lr 1': [0.1, 0.12345678], 'lr 2': [1.0, 0.0], 'lr 5': [0.2, 0.2]},
        'decay': {'decay 1': [1e-4, 1e-4], 'decay 4': [0.0, 0.0]},
        'resolution': {'resolution': [32, 48]},
        'strength': {'strength': [0.5, 1.0]},
        'EMA momentum': {'EMA momentum': [0.0, 0.012345]},
    }
    if not epochs:
        del panels['EMA momentum']
        panels['decay'] = {'decay': [0.0, 0.0]}
    with Image.open(tmp_path / 'a.png') as image:
        assert image.size == (800, 80 + 170 * len(panels))
    (figure,) = drawn
    assert figure.get_suptitle() == 'a title'
    assert figure.get_layout_engine() is not None
    for axis, (kind, expected) in zip(figure.axes, panels.items(), strict=True):
        *lines, phase = axis.lines
        assert axis.get_ylabel() == kind
        assert {line.get_label(): list(line.get_ydata()) for line in lines} == expected
        style = 'default' if kind in ('lr', 'decay') else 'steps-post'
        assert {line.get_drawstyle() for line in lines} == {style}
        assert [list(line.get_xdata()) for line in lines] == [[0, 2399 / per]] * len(lines)
        assert list(phase.get_xdata()) == [1200 / per] * 2
        assert (phase.get_color(), phase.get_linestyle(), phase.get_linewidth()) == ('grey', ':', 1)
        highest = max(map(max, expected.values())) or 1
        assert axis.get_ylim() == pytest.approx((-0.05 * highest, 1.08 * highest))
        assert axis.margins()[0] == 0.01
        limits = [a.get_major_formatter()._powerlimits for a in (axis.xaxis, axis.yaxis)]
        assert limits[1] == (-3, 4) != limits[0]
        assert axis.xaxis.get_gridlines()[0].get_alpha() == 0.3
        legend = axis.get_legend()
        assert (legend is not None) == (len(expected) > 1)
        assert not legend or legend.get_texts()[0].get_fontsize() < mpl.rcParams['font.size']
        assert axis.get_shared_x_axes().joined(axis, figure.axes[0])
    assert axis.get_xlabel() == ('epochs' if epochs else 'iterations')
