"""A killed run, resumed, ends with the weights of an uninterrupted one, bit by bit."""

import signal

import pytest
import torch

from helpers import ROOT, python
from mobileone_mm.weights.reading import read_checkpoint

# Everything that draws random numbers: order, augmentation in workers, Mixup and dropout in the
# main process; and a hook that kills the process where the environment says so.
KILL = """
import os
import signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == int(os.environ.get('KILL_AFTER', -1)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
BY_EPOCH = """
model.update(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
train_dataloader.update(batch_size=2, num_workers=2, persistent_workers=True)
train_cfg = dict(max_epochs=3)
default_hooks = dict(checkpoint=dict(save_best=None))
custom_hooks = [dict(type='mmengine.EMAHook', momentum=0.1), dict(type='Kill')]
custom_imports = dict(imports=['mobileone_mm', 'kill_hook'], allow_failed_imports=False)
"""
BY_ITERATION = """
train_dataloader.update(num_workers=1, sampler=dict(type='InfiniteSampler'))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8, val_interval=100)
param_scheduler = dict(_delete_=True, type='PolyLR', by_epoch=False, end=8)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2, save_best=None))
custom_hooks = [dict(type='Kill')]
custom_imports = dict(imports=['mobileone_mm', 'kill_hook'], allow_failed_imports=False)
"""


@pytest.mark.parametrize(
    ('task', 'extra', 'kill_after', 'last'),
    [
        ('cls', BY_EPOCH, 5, 'epoch_3.pth'),
        pytest.param('seg', BY_ITERATION, 4, 'iter_8.pth', marks=pytest.mark.slow),
    ],
)
def test_killed_run(task, extra, kill_after, last, tiny_config, tool, tmp_path, monkeypatch):
    (tmp_path / 'kill_hook.py').write_text(KILL)
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny_config(task, extra)
    unbroken, broken = tmp_path / 'unbroken', tmp_path / 'broken'
    assert tool('train', config, '--work-dir', unbroken, '--no-validate') == 0
    # The sums of a convolution depend on the number of threads.
    threads = {'KILL_AFTER': str(kill_after), 'OMP_NUM_THREADS': str(torch.get_num_threads())}
    run = (ROOT / 'tools' / 'train.py', config, '--work-dir', broken, '--no-validate')
    killed = python(*run, path=[tmp_path], env=threads, fails=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (broken / last).exists()
    assert tool('train', config, '--work-dir', broken, '--no-validate', '--resume') == 0

    want, got = read_checkpoint(unbroken / last), read_checkpoint(broken / last)
    assert want['meta']['iter'] == got['meta']['iter']
    for part in ('state_dict', 'ema_state_dict'):
        for key, value in want.get(part, {}).items():
            assert torch.equal(value, got[part][key]), key
    for a, b in zip(*(c['optimizer']['state'].values() for c in (want, got)), strict=True):
        for name, value in a.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(b[name])), name


def test_a_resumed_run_with_other_settings(tiny_config, tool, tmp_path, capfd):
    """It says which schedule it follows. Its iterations are those of the new batch size.

    mmengine goes on with the iteration of the old size, and the ETA can become negative.
    """
    config = tiny_config('cls', """
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', convert_to_iter_based=True)
default_hooks.update(checkpoint=dict(save_best=None))
""")  # fmt: skip
    run = ('train', config, '--work-dir', tmp_path, '--no-validate', '--resume', '--cfg-options')
    for epochs, size in ((1, 1), (1, 1), (2, 4)):
        capfd.readouterr()
        options = (f'train_cfg.max_epochs={epochs}', f'train_dataloader.batch_size={size}')
        assert tool(*run, *options) == 0
        log = ''.join(capfd.readouterr())
        says = 'CosineAnnealingLR: the run uses the schedule of its checkpoint' in log
        assert says is (epochs == 2)
    assert 'epoch 2 starts at iteration 3' in log
    assert log.count('eta: 0:0') == 2
    assert 'day' not in log
    assert read_checkpoint(tmp_path / 'epoch_2.pth')['meta']['iter'] == 4
