"""tools/train.py --dry-run: what it says is what the run does, and it leaves a drawing alone."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA
from mmengine.registry import HOOKS, MODELS, init_default_scope
from PIL import Image

from mobileone_mm.apis.dry_run import Plan, _macs, dry_run
from mobileone_mm.benchmark.plan_report import report
from mobileone_mm.benchmark.schedules import Group, Point
from mobileone_mm.models.count import count
from mobileone_mm.reparam import reparameterize_model

SCHEDULES = """
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', eta_min=1e-4, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[2], gamma=0.5),
    dict(type='mmpretrain.CosineAnnealingWeightDecay', eta_min_ratio=0.1,
         convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(lr=0.02), paramwise_cfg=dict(
    custom_keys={'head.fc.weight': dict(lr_mult=3, decay_mult=0.5)}))
train_dataloader.update(batch_size=2)
custom_hooks = [
    dict(type='mmengine.EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.1, gamma=5,
         begin_iter=4),
    dict(type='mobileone_mm.CurriculumHook', total=30, phases=[
        dict(begin=0, resolution=32), dict(begin=10, resolution=48)]),
    dict(type='mmengine.SettingsProbe'),
]
train_cfg = dict(max_epochs=3)
"""
BY_ITERATION = """
train_dataloader.update(sampler=dict(type='InfiniteSampler'))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=7, val_interval=100)
param_scheduler = dict(_delete_=True, type='PolyLR', by_epoch=False, end=6)
default_hooks = dict(checkpoint=dict(by_epoch=False, save_best=None))
custom_hooks = [dict(type='mmengine.SettingsProbe')]
"""


@HOOKS.register_module(force=True)
class SettingsProbe(Hook):
    """What the optimizer and the images of a real run are."""

    seen: list = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = {
            (group['lr'], group['weight_decay'])
            for group in runner.optim_wrapper.optimizer.param_groups
        }
        self.seen.append((groups, tuple(data_batch['inputs'][0].shape[-2:])))


def listing(folder):
    return {
        path: path.stat().st_mtime_ns if path.is_file() else None
        for path in folder.rglob('*')
        if '__pycache__' not in path.parts
    }


@pytest.mark.parametrize(
    ('task', 'extra'),
    [('cls', SCHEDULES), pytest.param('seg', BY_ITERATION, marks=pytest.mark.slow)],
)
def test_the_plan_is_what_happens(task, extra, tiny_config, tool, tmp_path):
    config = tiny_config(task, extra)
    plan = dry_run(config, work_dir=str(tmp_path / 'plan'), no_validate=True)
    SettingsProbe.seen.clear()
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    assert plan.iterations == len(SettingsProbe.seen)
    assert [point.iteration for point in plan.curve] == list(range(plan.iterations))
    for point, (groups, _) in zip(plan.curve, SettingsProbe.seen, strict=True):
        assert set(zip(point.lr, point.weight_decay, strict=True)) == groups
    if task == 'cls':
        assert [phase.resolution for _, phase in plan.phases] == [32, 48]
        for point, (_, size) in zip(plan.curve, SettingsProbe.seen, strict=True):
            assert size == (plan.phase_at(point.iteration).resolution,) * 2
        assert [measure.size for measure in plan.measures] == [(32, 32), (48, 48)]
        assert [measure.iterations for measure in plan.measures] == [4, 8]
        # The average starts behind the fourth iteration; its momentum falls from gamma's to 0.1.
        assert [point.ema is None for point in plan.curve] == [True] * 4 + [False] * 8
        assert plan.curve[4].ema == pytest.approx(5 / (5 + 4))
        assert plan.curve[11].ema == pytest.approx(5 / (5 + 11))


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_all_three_tasks(task, tiny_config, tool, tmp_path, capsys):
    config = tiny_config(task)
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'epoch_1.pth').write_bytes(b'of an earlier run')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    before = listing(tmp_path)
    assert tool('train', config, '--work-dir', work_dir, '--dry-run') == 0
    after = listing(tmp_path)
    assert after.pop(work_dir / 'plan.png')
    after[work_dir] = before[work_dir]
    assert after == before
    with Image.open(work_dir / 'plan.png') as image:
        assert image.size[0] == 800
        assert len(image.convert('RGB').getcolors(10**6)) > 50  # there are lines on it
    out = capsys.readouterr().out
    images, batch = {'cls': (8, 4), 'det': (6, 2), 'seg': (6, 2)}[task]
    assert f'data   {images} images' in out
    assert f'batch  {batch} images a step: {batch} x 1 process' in out
    size = {'cls': '48 x 48', 'det': '320 x 320', 'seg': '64 x 64'}[task]
    row = next(line for line in out.splitlines() if line.startswith(size))
    assert '?' not in row
    assert 'by a few measured steps; validation not counted' in out


def test_refusals(refused, tiny_config, tmp_path):
    config = tiny_config('cls')
    run = ('train', config, '--work-dir', 'run')
    assert '--dry-run: shows the plan of the whole run; leave --resume out' in refused(
        *run, '--resume', '--dry-run'
    )
    assert "--dry-run: got 'plan.pdf'; the drawing is a .png file" in refused(
        *run, '--dry-run', 'plan.pdf'
    )
    line = refused(*run, '--dry-run', config / 'plan.png')
    assert line.startswith(f"error: --dry-run: '{config}' is a file; give a folder")
    hook = "dict(type='mobileone_mm.CurriculumHook', phases=[dict(begin=0, strength=0.5)])"
    broken = tiny_config('cls', f'custom_hooks = [{hook}]\n', 'broken')
    assert 'strength: the training pipeline has nothing' in refused(
        'train', broken, '--work-dir', 'run', '--dry-run'
    )


@pytest.mark.parametrize('arch', ['s0', 's4', 'mu1'])
def test_macs(arch):
    cfg = Config.fromfile(f'configs/mobileone_{arch}_in1k.py')
    init_default_scope('mmpretrain')
    model = reparameterize_model(MODELS.build(cfg.model).eval(), inplace=True)
    assert _macs(model, (64, 64)) == count(arch, input_size=64).macs


def test_averages_are_asked():
    """Both give their momentum as the weight of a one against a zero."""
    from types import SimpleNamespace

    from mmengine.hooks import EMAHook

    from mobileone_mm.benchmark.schedules import ema_momentum

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
        Group(0.1, 1e-4, {'weights': 3}, 1000),
        Group(1.0, 1e-4, {'weights': 1, 'norms': 2}, 100),
        Group(0.1, 0.0, {'norms': 5, 'biases': 1}, 50),
    ]
    points = [Point(i, [0.1, 1.0, 0.1], [1e-4, 1e-4, 0.0], None) for i in (0, 99)]
    plan = Plan(
        1150, 1150, 25600, (8, 32, 2), 100, 100, None, groups, points, points, [], [], 'cpu'
    )
    text = report(plan, 'a title')
    assert 'batch  512 images a step: 32 x 8 processes x 2 accumulated' in text
    assert 'run    100 iterations, 50 steps of the optimizer' in text
    assert 'Some norms have weight decay, others have none' in text
    assert 'iteration  lr 1  lr 2  decay 1  decay 2  decay 3' in text
    assert '1 weight, 2 norms' in text
    assert '5 norms, 1 bias' in text
