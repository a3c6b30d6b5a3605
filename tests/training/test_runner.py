"""The Runner's own decisions: default hooks, loaders, compilation, resume in another setting."""

from __future__ import annotations

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.optim import CosineAnnealingLR
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mobileone_mm.errors import InputError
from mobileone_mm.training.run_model import require_units, unwrapped
from mobileone_mm.training.runner import Runner, checked_resume, join_cpu_group
from mobileone_mm.weights.mmengine_loader import use_safe_loader

from .conftest import loader

EMA = dict(type='EMAHook', momentum=0.3)


def names(runner):
    return [type(hook).__name__ for hook in runner.hooks]


def test_default_hooks(make_runner):
    found = names(make_runner(kind=Runner))
    assert found.count('IterationSeedHook') == found.count('AverageCheckHook') == 1
    assert type(make_runner(kind=Runner).hooks[-1]).__module__ == 'mobileone_mm.hooks.checkpoint'
    assert 'ChannelsLastHook' not in found
    last = make_runner(kind=Runner, cfg=dict(channels_last=True))
    assert names(last)[-1] == 'ChannelsLastHook'
    runner = make_runner(kind=Runner)
    runner._hooks.clear()
    given = dict(iteration_seed=None, checkpoint=None)
    runner.register_default_hooks(given)
    assert 'IterationSeedHook' not in names(runner)
    assert 'CheckpointHook' not in names(runner)
    assert given == dict(iteration_seed=None, checkpoint=None)
    runner._hooks.clear()
    runner.register_default_hooks()
    (checkpoint,) = (hook for hook in runner.hooks if type(hook).__name__ == 'CheckpointHook')
    assert type(checkpoint).__module__ == 'mobileone_mm.hooks.checkpoint'
    assert checkpoint.interval == 1
    runner._hooks.clear()
    runner.register_default_hooks(dict(checkpoint=dict(type='mmengine.CheckpointHook')))
    (checkpoint,) = (hook for hook in runner.hooks if type(hook).__name__ == 'CheckpointHook')
    assert type(checkpoint).__module__.startswith('mmengine.')


def test_a_loader_without_a_batch():
    with pytest.raises(InputError, match=r'has 12 images per epoch .* one batch of 13 per process'):
        Runner.build_dataloader(dict(loader(False), batch_size=13, drop_last=True))
    built = Runner.build_dataloader(dict(loader(False), batch_size=12, drop_last=True), seed=0)
    assert len(built) == 1
    assert Runner.build_dataloader(built) is built


@pytest.mark.parametrize('seed', [None, 3])
def test_a_loader_has_seeds_if_the_run_has_one(seed):
    built = Runner.build_dataloader(loader(True), seed=seed)
    assert hasattr(next(iter(built.sampler)), 'seed') is (seed is not None)


def test_the_config_is_written_by_one_process_when_asked(make_runner, tmp_path, monkeypatch):
    runner = make_runner(kind=Runner)
    runner.dump_config()
    assert not list(tmp_path.rglob('*.py'))
    runner.write_config(tmp_path)
    (file,) = tmp_path.glob('*.py')
    assert file.stem == runner.timestamp
    file.unlink()
    monkeypatch.setattr(Runner, 'rank', 1)
    runner.write_config(tmp_path)
    assert not list(tmp_path.glob('*.py'))


@pytest.mark.parametrize(
    ('value', 'given'), [(True, {}), (dict(backend='eager'), dict(backend='eager'))]
)
def test_compile_compiles_the_backbone(value, given, make_runner, monkeypatch):
    runner = make_runner(kind=Runner, cfg=dict(compile=value))
    calls = []
    monkeypatch.setattr(nn.Module, 'compile', lambda self, **kw: calls.append((self, kw)))
    runner._maybe_compile('train_step')
    assert calls == [(runner.model.backbone, given)]


@pytest.mark.parametrize('value', [None, False, True])
def test_a_model_without_a_backbone_is_compiled_by_mmengine(value, make_runner, monkeypatch):
    calls = []
    monkeypatch.setattr(MMEngineRunner, '_maybe_compile', lambda self, target: calls.append(target))
    runner = make_runner(kind=Runner, cfg=dict(compile=value))
    backbone = runner.model.backbone
    monkeypatch.setattr(nn.Module, 'compile', lambda self, **kw: calls.append(self))
    runner._maybe_compile('train_step')
    assert calls == [backbone if value else 'train_step']
    runner.model.backbone = None
    runner._maybe_compile('val_step')
    assert calls[1:] == ['val_step']


@pytest.mark.parametrize('timeout', [None, 60])
def test_a_process_group_on_the_cpu(timeout, monkeypatch):
    given = []
    monkeypatch.setattr(dist, 'init_process_group', lambda *args, **kw: given.append((args, kw)))
    monkeypatch.setenv('RANK', '3')
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    join_cpu_group(timeout)
    limit = timedelta(seconds=60) if timeout else None
    assert given == [(('gloo',), dict(timeout=limit))]
    assert os.environ.pop('LOCAL_RANK') == '3'


def test_the_wrapper_on_the_cpu(make_runner, monkeypatch):
    """Without device ids, with BN instead of SyncBN, and with the settings of the config."""
    given = []
    monkeypatch.setattr(
        MMEngineRunner, 'wrap_model', lambda self, wrapper, model: given.append((wrapper, model))
    )
    cfg = dict(find_unused_parameters=True, sync_bn='torch')
    runner = make_runner(kind=Runner, cfg=cfg)
    runner._distributed = True
    runner.wrap_model(dict(static_graph=True), nn.Sequential(nn.SyncBatchNorm(3)))
    wrapper, model = given[-1]
    assert wrapper == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True,
        static_graph=True, device_ids=None,
    )  # fmt: skip
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    assert 'sync_bn' not in runner.cfg


def test_log_folders_are_recorded(make_runner):
    runner = make_runner(kind=Runner)
    assert str(Runner.log_dirs[-1]) == runner.log_dir


def resumed(make_runner, tmp_path, *hooks, epoch=2, **settings):
    """A Runner that resumes a run of two epochs of three iterations, before it trains."""
    use_safe_loader()
    path = tmp_path / 'source' / f'epoch_{epoch}.pth'
    return make_runner(
        *hooks, kind=Runner, name='new', resume=True, load_from=str(path), **settings
    )


def test_resume_with_another_batch_size(make_runner, tmp_path, capfd):
    """The iteration is that of the epoch, so that the ETA is that of the rest."""
    make_runner(kind=Runner, name='source').train()
    runner = resumed(make_runner, tmp_path, epochs=4)
    runner._train_dataloader = dict(loader(True), batch_size=2)
    etas = []
    update = runner.message_hub.update_info
    runner.message_hub.update_info = lambda key, value, **more: (
        etas.append(value) if key == 'eta' else None, update(key, value, **more)
    )  # fmt: skip
    runner.train()
    assert runner.iter == 4 * 6
    assert min(etas) >= 0
    assert 'starts at iteration 13, not at iteration 7 of' in ''.join(capfd.readouterr())


def test_resume_with_the_same_batch_size_changes_no_iteration(make_runner, tmp_path, capfd):
    make_runner(kind=Runner, name='source').train()
    for epoch in (1, 2):
        runner = resumed(make_runner, tmp_path, epoch=epoch, epochs=3)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.load_or_resume()
        assert runner.iter == 3 * epoch
    assert 'starts at iteration' not in ''.join(capfd.readouterr())


def test_resume_of_an_average_without_its_hook(make_runner, tmp_path, capfd):
    make_runner(EMA, kind=Runner, name='source').train()
    capfd.readouterr()
    resumed(make_runner, tmp_path, epochs=3).train()
    assert 'this run has none: it continues from the averaged' in ''.join(capfd.readouterr())
    resumed(make_runner, tmp_path, EMA, epochs=3).train()
    assert 'this run has none' not in ''.join(capfd.readouterr())


class Fake:
    """What a resume reads of a Runner."""

    param_schedulers = None
    _load_from = 'run.pth'

    def __init__(self, resume):
        self._resume = resume


def test_a_state_that_does_not_fit():
    line = r"^--resume: the state in 'run.pth' .*KeyError: groups\)"
    with pytest.raises(InputError, match=line), checked_resume(Fake(True)):
        raise KeyError('groups')
    with pytest.raises(KeyError), checked_resume(Fake(False)):
        raise KeyError('groups')
    own = InputError('ours')
    with pytest.raises(InputError) as caught, checked_resume(Fake(True)):
        raise own
    assert caught.value is own
    with pytest.raises(KeyboardInterrupt), checked_resume(Fake(True)):
        raise KeyboardInterrupt


class Resumed:
    """A Runner with one schedule for each of two optimizers, or for one."""

    _resume = True

    def __init__(self, several):
        optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0) for _ in range(2)]
        groups = [[CosineAnnealingLR(optimizer, T_max=4)] for optimizer in optimizers]
        self.param_schedulers = dict(a=groups[0], b=groups[1]) if several else groups[1]
        self.last = groups[1][0]
        self.lines = []
        self.logger = SimpleNamespace(warning=self.lines.append)


@pytest.mark.parametrize('several', [True, False])
def test_schedules_that_a_checkpoint_replaces(several):
    runner = Resumed(several)
    with checked_resume(runner):
        runner.last.last_step = 3  # how far it is is no difference
    assert not runner.lines
    with checked_resume(runner):
        runner.last.T_max = 2
    (line,) = runner.lines
    assert line.startswith(
        'CosineAnnealingLR: the run uses the schedule of its checkpoint (T_max 2, not'
    )


def test_no_schedule_is_no_difference():
    runner = Resumed(False)
    runner.param_schedulers = None
    with checked_resume(runner):
        pass
    assert not runner.lines


def test_the_model_of_a_run():
    from mmengine.model import MMDistributedDataParallel

    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = inner = nn.Linear(2, 2)
    assert unwrapped(wrapper) is inner
    assert unwrapped(inner) is inner
    with pytest.raises(InputError, match=r'^custom_hooks: SomeHook expects a MobileOne'):
        require_units(inner, 'SomeHook')


def test_iterations_are_not_corrected_in_loops_without_epochs(make_runner, tmp_path):
    cfg = dict(by_epoch=False, max_iters=4, val_interval=10)
    checkpoint = dict(by_epoch=False, interval=2)
    runner = make_runner(kind=Runner, name='source', checkpoint=checkpoint)
    runner._train_loop = cfg
    runner.train()
    assert isinstance(runner.train_loop, IterBasedTrainLoop)
    other = make_runner(kind=Runner, name='new', checkpoint=checkpoint, resume=True,
                        load_from=str(tmp_path / 'source' / 'iter_4.pth'))  # fmt: skip
    other._train_loop = dict(cfg, max_iters=6)
    use_safe_loader()
    other.train()
    assert other.iter == 6
    assert torch.isfinite(next(other.model.parameters())).all()
