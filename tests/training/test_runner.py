"""The Runner's own decisions: default hooks, loaders, compilation, resume in another setting."""

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mobileone_mm.errors import InputError
from mobileone_mm.runs.prepare import Prepared
from mobileone_mm.runs.running import _build
from mobileone_mm.training.run_model import has_branches, unwrapped
from mobileone_mm.training.runner import Runner, checked_resume
from mobileone_mm.weights.mmengine_loader import use_safe_loader
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import loader


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
    ('value', 'given'),
    [(None, None), (False, None), (True, {}), (dict(backend='eager'), dict(backend='eager'))],
)
def test_compile_compiles_the_backbone(value, given, make_runner, monkeypatch):
    """A model without a backbone is compiled by mmengine."""
    runner = make_runner(kind=Runner, cfg=dict(compile=value))
    ours, theirs = [], []
    monkeypatch.setattr(nn.Module, 'compile', lambda self, **kw: ours.append((self, kw)))
    monkeypatch.setattr(
        MMEngineRunner, '_maybe_compile', lambda self, target: theirs.append(target)
    )
    runner._maybe_compile('train_step')
    assert ours == ([] if given is None else [(runner.model.backbone, given)])
    runner.model.backbone = None
    runner._maybe_compile('val_step')
    assert theirs == [*(['train_step'] if given is None else []), 'val_step']


@pytest.mark.parametrize('timeout', [None, 60])
def test_a_process_group_on_the_cpu(timeout, make_runner, monkeypatch):
    given = []
    runner = make_runner(kind=Runner)
    runner._distributed = True
    monkeypatch.setattr(MMEngineRunner, 'setup_env', lambda self, env_cfg: None)
    monkeypatch.setattr(dist, 'init_process_group', lambda *args, **kw: given.append((args, kw)))
    monkeypatch.setenv('RANK', '3')
    monkeypatch.delenv('LOCAL_RANK')
    runner.setup_env(dict(dist_cfg=dict(timeout=timeout)) if timeout else {})
    limit = timedelta(seconds=60) if timeout else None
    assert given == [(('gloo',), dict(timeout=limit))]
    assert os.environ.pop('LOCAL_RANK') == '3'
    assert str(Runner.log_dirs[-1]) == runner.log_dir


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


def test_the_config_of_a_resumed_run_starts_a_new_run(tiny_config, tool, tmp_path, capfd):
    """And a run that has reached its end says so."""
    run = tmp_path / 'run'
    config = tiny_config('cls', 'default_hooks.update(checkpoint=dict(save_best=None))\n')
    first = ('train', config, '--work-dir', run, '--no-validate')
    assert tool(*first) == 0
    weights = run / 'epoch_1.pth'
    capfd.readouterr()
    resume = ('--resume', '--cfg-options', f'load_from={weights}')
    assert tool(*first, *resume) == 0
    end = (
        f"'{weights}' is the end of its run (epoch 1 of 1), so nothing is trained; to train longer"
    )
    assert f'{end}, raise train_cfg.max_epochs' in ''.join(capfd.readouterr())
    assert tool(*first, *resume, 'train_cfg.max_epochs=2') == 0
    assert 'end of its run' not in ''.join(capfd.readouterr())
    assert read_checkpoint(run / 'epoch_2.pth')['meta']['iter'] == 4
    dumped = run / 'cls.py'
    for path in (dumped, max(run.glob('*/vis_data/config.py'))):
        found = Config.fromfile(path)
        assert (found.load_from, found.resume) == (str(weights), False)
    new = ('train', dumped, '--work-dir', tmp_path / 'new', '--no-validate')
    assert tool(*new, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert read_checkpoint(tmp_path / 'new' / 'epoch_1.pth')['meta']['iter'] == 2


@pytest.mark.parametrize(
    ('written', 'kept'),
    [
        (dict(load_from='weights'), 'weights'),
        (dict(load_from='run', resume=True), None),
        (dict(resume=False), None),
    ],
)
def test_what_the_written_config_keeps_of_the_start(written, kept, monkeypatch):
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: SimpleNamespace(cfg=cfg))
    runner = _build(Prepared(Config(dict(load_from='last', resume=True)), Config(written)))
    assert (runner.cfg.load_from, runner.cfg.resume) == (kept, False)
    assert (runner._load_from, runner._resume) == ('last', True)


@pytest.mark.parametrize('constructor', ['mobileone_mm.OptimWrapperConstructor', None])
@pytest.mark.parametrize(
    ('optimizer', 'lr', 'decay'),
    [
        (dict(type='AdamW', lr=0.5), 0.5, 0.01),
        (dict(type='SGD', weight_decay=0.25), 1e-3, 0.25),
        (dict(type='Adagrad'), 0.01, 0),
    ],
)
def test_an_optimizer_without_rate_or_decay(make_runner, constructor, optimizer, lr, decay):
    """What the config does not give is the default of the class, also for the multipliers."""
    runner = make_runner(kind=Runner)
    rules = dict(norm_decay_mult=0.0, bias_lr_mult=2.0, custom_keys=dict(head=dict(lr_mult=10.0)))
    wrapper = dict(optimizer=optimizer, paramwise_cfg=rules)
    if constructor:
        wrapper['constructor'] = constructor
    wrapper = runner.build_optim_wrapper(wrapper)
    found = {id(g['params'][0]): (g['lr'], g['weight_decay']) for g in wrapper.param_groups}
    named = {name: found[id(p)] for name, p in runner.model.named_parameters()}
    stage = 'backbone.stage1.0.branch_scale'
    assert named['head.weight'] == pytest.approx((10 * lr, decay))
    assert named[f'{stage}.conv.weight'] == (lr, decay)
    assert named[f'{stage}.norm.weight'] == (lr, 0)
    plain = runner.build_optim_wrapper(dict(optimizer=optimizer))
    assert (plain.param_groups[0]['lr'], plain.param_groups[0]['weight_decay']) == (lr, decay)


def test_a_state_that_does_not_fit():
    runner = SimpleNamespace(param_schedulers=None, _load_from='run.pth', _resume=True)
    line = r"^--resume: the state in 'run.pth' .*KeyError: groups\)"
    with pytest.raises(InputError, match=line), checked_resume(runner):
        raise KeyError('groups')
    for own in (InputError('ours'), FileNotFoundError('file'), KeyboardInterrupt()):
        with pytest.raises(type(own)) as caught, checked_resume(runner):
            raise own
        assert caught.value is own
    runner._resume = False
    with pytest.raises(KeyError), checked_resume(runner):
        raise KeyError('groups')


@pytest.mark.parametrize('several', [True, False])
def test_schedules_that_a_checkpoint_replaces(several):
    optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0) for _ in range(2)]
    groups = [[CosineAnnealingLR(optimizer, T_max=4)] for optimizer in optimizers]
    lines, last = [], groups[1][0]
    runner = SimpleNamespace(_resume=True, logger=SimpleNamespace(warning=lines.append))
    runner.param_schedulers = dict(a=groups[0], b=groups[1]) if several else groups[1]
    with checked_resume(runner):
        last.last_step = 3  # how far it is is no difference
    assert not lines
    with checked_resume(runner):
        last.T_max = 2
    (line,) = lines
    assert line.startswith(
        'CosineAnnealingLR: the run uses the schedule of its checkpoint (T_max 2, not'
    )
    runner.param_schedulers = None
    with checked_resume(runner):
        pass
    assert len(lines) == 1


def test_the_model_of_a_run():
    from mmengine.model import MMDistributedDataParallel

    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = inner = nn.Linear(2, 2)
    assert unwrapped(wrapper) is inner
    assert unwrapped(inner) is inner
    with pytest.raises(InputError, match=r'^custom_hooks: SomeHook expects a MobileOne'):
        has_branches(inner, 'SomeHook')


def test_loops_without_epochs(make_runner, tmp_path, capfd):
    """A resumed run keeps its iteration, and says that it is at its end."""
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
    assert 'end of its run' not in ''.join(capfd.readouterr())
    last = make_runner(kind=Runner, name='end', checkpoint=checkpoint, resume=True,
                       load_from=str(tmp_path / 'new' / 'iter_6.pth'))  # fmt: skip
    last._train_loop = dict(cfg, max_iters=6)
    last.train()
    line = '(iter 6 of 6), so nothing is trained; to train longer, raise train_cfg.max_iters'
    assert line in ''.join(capfd.readouterr())
    assert torch.isfinite(next(other.model.parameters())).all()
