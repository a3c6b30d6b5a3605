"""tools/train.py --dry-run: what it says is what the run does, and it leaves a drawing alone."""

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from PIL import Image

from mobileone_mm import MobileOne
from mobileone_mm.apis.dry_run import dry_run

from ..weights.conftest import contents

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
        optimizer = runner.optim_wrapper.optimizer
        groups = {(group['lr'], group['weight_decay']) for group in optimizer.param_groups}
        ema = next((hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)), None)
        steps = None if ema is None else int(ema.steps)
        self.seen.append((groups, tuple(data_batch['inputs'][0].shape[-2:]), steps))


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
    for point, (groups, *_) in zip(plan.curve, SettingsProbe.seen, strict=True):
        assert set(zip(point.lr, point.weight_decay, strict=True)) == groups
    if task == 'cls':
        assert [phase.resolution for _, phase in plan.phases] == [32, 48]
        for point, (_, size, steps) in zip(plan.curve, SettingsProbe.seen, strict=True):
            assert size == (plan.phase_at(point.iteration).resolution,) * 2
            # The average starts behind the fourth iteration; its momentum falls from gamma's to 0.1.
            assert point.ema == (pytest.approx(5 / (5 + steps)) if point.iteration >= 4 else None)
        assert [measure.cost.size for measure in plan.measures] == [(32, 32), (48, 48)]
        assert [measure.iterations for measure in plan.measures] == [4, 8]


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_all_three_tasks(task, tiny_config, tool, tmp_path, capsys):
    config = tiny_config(task)
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'epoch_1.pth').write_bytes(b'of an earlier run')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    before = contents(tmp_path)
    assert tool('train', config, '--work-dir', work_dir, '--dry-run') == 0
    after = contents(tmp_path)
    assert after.pop(str(work_dir / 'plan.png'))
    assert after == before
    with Image.open(work_dir / 'plan.png') as image:
        assert image.size[0] == 800
        assert len(image.convert('RGB').getcolors(10**6)) > 50  # there are lines on it
    out = capsys.readouterr().out
    images, batch = {'cls': (8, 4), 'det': (6, 2), 'seg': (6, 2)}[task]
    assert f'data   {images} images' in out
    assert f'batch  {batch} images a step: batch_size {batch}, processes 1' in out
    size = {'cls': '48 x 48', 'det': '320 x 320', 'seg': '64 x 64'}[task]
    row = next(line for line in out.splitlines() if line.startswith(size))
    assert '?' not in row
    assert 'from a few measured steps, without validation' in out


def test_refusals(refused, tiny_config, tmp_path):
    config = tiny_config('cls')
    run = ('train', config, '--work-dir', 'run', '--dry-run')
    line = '--dry-run: shows the plan of the whole run; leave --resume out'
    assert line in refused(*run, '--resume')
    assert "--dry-run: got 'plan.pdf'; the drawing is a .png file" in refused(*run, 'plan.pdf')
    line = refused(*run, config / 'plan.png')
    assert line.startswith(f"error: --dry-run: cannot write '{config}': a file of that name exists")
    hook = "dict(type='mobileone_mm.CurriculumHook', phases=[dict(begin=0, strength=0.5)])"
    torch.save(MobileOne('s1').state_dict(), tmp_path / 's1.pth')
    line = refused(*run, '--cfg-options', f'load_from={tmp_path}/s1.pth')
    assert 's1.pth' in line
    assert 'size' in line
    broken = tiny_config('cls', f'custom_hooks = [{hook}]\n', 'broken')
    line = 'strength: the training pipeline has no transform that it would change'
    assert line in refused('train', broken, *run[2:])
