"""The Runner's own decisions: default hooks, loaders, compilation, resume in another setting."""

import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import CosineAnnealingLR, OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.optim import Adam

from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.runs.prepare import Prepared
from mobileone_mm.runs.running import _build
from mobileone_mm.training.run_model import datasets_inside, has_branches, unwrapped
from mobileone_mm.training.runner import Runner, checked_resume
from mobileone_mm.weights.mmengine_loader import use_safe_loader
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import TINY, loader, log_of, rates_of


def names(runner):
    return [type(hook).__name__ for hook in runner.hooks]


def checkpoint_hook(runner, *given):
    """The module and the object of the CheckpointHook among the default hooks, registered anew."""
    runner._hooks.clear()
    runner.register_default_hooks(*given)
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == 'CheckpointHook')
    return type(hook).__module__, hook


def test_default_hooks(make_runner):
    runner = make_runner(kind=Runner)
    found = names(runner)
    assert found.count('IterationSeedHook') == found.count('AverageCheckHook') == 1
    assert found.count('PredictionCheckHook') == 1
    assert type(runner.hooks[-1]).__module__ == 'mobileone_mm.hooks.checkpoint'
    assert 'ChannelsLastHook' not in found
    last = make_runner(kind=Runner, cfg=dict(channels_last=True))
    assert names(last)[-1] == 'ChannelsLastHook'
    module, hook = checkpoint_hook(runner)
    assert (module, hook.interval) == ('mobileone_mm.hooks.checkpoint', 1)
    module, _ = checkpoint_hook(runner, dict(checkpoint=dict(type='mmengine.CheckpointHook')))
    assert module.startswith('mmengine.')
    runner._hooks.clear()
    given = dict(iteration_seed=None, checkpoint=None)
    runner.register_default_hooks(given)
    assert not {'IterationSeedHook', 'CheckpointHook'} & set(names(runner))
    assert given == dict(iteration_seed=None, checkpoint=None)


def test_loaders():
    with pytest.raises(InputError, match=r'has 12 images per epoch .* one batch of 13 per process'):
        Runner.build_dataloader(dict(loader(False), batch_size=13, drop_last=True))
    built = Runner.build_dataloader(dict(loader(False), batch_size=12, drop_last=True), seed=0)
    assert len(built) == 1
    assert hasattr(built.dataset, '__getitems__')
    defaults = [kind.build_dataloader.__defaults__ for kind in (Runner, MMEngineRunner)]
    assert defaults[0] == defaults[1]
    assert Runner.build_dataloader(built) is built
    for seed in (None, 3):  # seeds of the samples, if the run has one
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
    lines = []
    monkeypatch.setattr(runner.logger, 'info', lines.append)
    runner.cfg.pop('find_unused_parameters')
    runner.wrap_model(None, nn.Linear(1, 1))
    assert given[-1][0]['find_unused_parameters'] is False
    assert not lines


END = (
    "'run.pth' is the end of its run ({}), so nothing is trained; to train longer, raise train_cfg."
)


@pytest.mark.parametrize(
    ('kind', 'last', 'length', 'first', 'lines'),
    [
        (EpochBasedTrainLoop, 3, 3, 6, []),
        (EpochBasedTrainLoop, 1, 3, 6, [f'{END.format("epoch 2 of 1")}max_epochs']),
        (EpochBasedTrainLoop, 4, 6, 12, ['starts at iteration 13, not at iteration 7 of the']),
        (IterBasedTrainLoop, 7, 6, 6, []),
        (IterBasedTrainLoop, 6, 6, 6, [f'{END.format("iter 6 of 6")}max_iters']),
    ],
)
def test_where_a_resumed_run_goes_on(kind, last, length, first, lines, monkeypatch):
    """Behind epoch 2 and iteration 6; with another batch size, behind the epoch, for the ETA."""
    monkeypatch.setattr(MMEngineRunner, 'resume', lambda self, *args, **kwargs: None)
    runner, loop, said = Runner.__new__(Runner), kind.__new__(kind), []
    loop._epoch, loop._iter, loop.dataloader = 2, 6, range(length)
    loop._max_epochs, loop._max_iters = (last, 9) if kind is EpochBasedTrainLoop else (9, last)
    runner._train_loop, runner._load_from = loop, 'run.pth'
    runner.logger = SimpleNamespace(warning=said.append)
    runner.resume('run.pth')
    assert runner.iter == first
    assert [wanted in line for wanted, line in zip(lines, said, strict=True)] == [True] * len(lines)


def test_the_config_of_a_resumed_run_starts_a_new_run(train):
    weights = train('cls') / 'epoch_1.pth'
    resume = ('--resume', '--cfg-options', f'load_from={weights}', 'train_cfg.max_epochs=2')
    run = train('cls', '', *resume)
    assert read_checkpoint(run / 'epoch_2.pth')['meta']['iter'] == 4
    for path in (run / 'cls.py', max(run.glob('*/vis_data/config.py'))):
        found = Config.fromfile(path)
        assert (found.load_from, found.resume) == (str(weights), False)


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


@pytest.mark.parametrize(
    'constructor', [dict(constructor='mobileone_mm.OptimWrapperConstructor'), {}]
)
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
    wrapper = dict(optimizer=optimizer, paramwise_cfg=rules, **constructor)
    named = rates_of(runner.model, runner.build_optim_wrapper(wrapper))
    stage = 'backbone.stage1.0.branch_scale'
    assert named['head.weight'] == pytest.approx((10 * lr, decay))
    assert named[f'{stage}.conv.weight'] == (lr, decay)
    assert named[f'{stage}.norm.weight'] == (lr, 0)
    plain = runner.build_optim_wrapper(dict(optimizer=optimizer))
    assert runner.build_optim_wrapper(plain) is plain
    assert (plain.param_groups[0]['lr'], plain.param_groups[0]['weight_decay']) == (lr, decay)


def test_a_state_that_does_not_fit():
    runner = SimpleNamespace(
        param_schedulers=None, optim_wrapper=None, _load_from='run.pth', _resume=True,
        message_hub=MessageHub('not fitting'),
    )  # fmt: skip
    line = r"^--resume: the state in 'run.pth' .*\(KeyError: .*must contain the key .type"
    with pytest.raises(InputError, match=line), checked_resume(runner):
        MODELS.build({})
    # The last is raised in code of the user.
    for own in (InputError('ours'), FileNotFoundError('file'), KeyboardInterrupt(), KeyError('x')):
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
    hub = MessageHub('schedules')
    logger = SimpleNamespace(warning=lines.append)
    runner = SimpleNamespace(_resume=True, logger=logger, optim_wrapper=None, message_hub=hub)
    runner.param_schedulers = dict(a=groups[0], b=groups[1]) if several else groups[1]
    with checked_resume(runner):
        last.last_step = last._global_step = 3  # how far it is is no difference
        last.base_values = [3.0]
    assert not lines
    with checked_resume(runner):
        last.T_max = 2
    (line,) = lines
    assert line.startswith(
        'CosineAnnealingLR: the run uses the schedule of its checkpoint (T_max 2, not'
    )
    for _ in range(2):
        with checked_resume(runner):
            runner.param_schedulers = None  # there may be fewer of them, or none
    assert len(lines) == 1


SGD = dict(type='SGD', lr=0.05, momentum=0.9)
ADAM = dict(type='Adam', lr=0.05, betas=(0.9, 0.99))
RATE = dict(type='LinearLR', start_factor=0.5, end=4, by_epoch=False)
BETA = dict(type='LinearMomentum', start_factor=0.5, end=4, by_epoch=False)


@pytest.mark.parametrize(
    ('optimizer', 'schedule', 'other', 'said'),
    [
        (SGD, RATE, dict(lr=0.5, momentum=0.9, weight_decay=0.1),
         'SGD: .*(lr 0.05, not 0.5, weight_decay 0, not 0.1 as in this config)'),
        (ADAM, BETA, dict(betas=(0.8, 0.99)), 'Adam: .*(betas [0.9, 0.99], not [0.8, 0.99] as in'),
    ],
)  # fmt: skip
def test_optimizer_settings_that_a_checkpoint_replaces(
    optimizer, schedule, other, said, make_runner, tmp_path
):
    """The same settings, in the middle of a schedule, are no difference."""
    use_safe_loader()

    def run(name='run', checkpoint=None, **changed):
        resume = checkpoint and dict(resume=True, load_from=str(checkpoint))
        wrapper = dict(optimizer=changed if 'type' in changed else {**optimizer, **changed})
        parts = dict(optim_wrapper=wrapper, param_scheduler=schedule, **(resume or {}))
        make_runner(kind=Runner, name=name, epochs=2 if resume else 1, **parts).train()
        return log_of(tmp_path / name)

    run()
    last = tmp_path / 'run' / 'epoch_1.pth'
    assert 'as in this config' not in run('same', last)
    kind, _, values = said.partition('.*')
    (line,) = [line for line in run('other', last, **other).splitlines() if values in line]
    assert f'{kind}the run uses the optimizer settings of its checkpoint (' in line
    with pytest.raises(
        InputError, match=rf"epoch_1.pth' is of a run with {kind[:-2]}, .* has AdamW;"
    ):
        run('class', last, type='AdamW', lr=0.05)


def test_an_optimizer_that_the_checkpoint_of_a_host_does_not_fit():
    """torch takes the state; the first step would be a KeyError."""
    adam, sgd = (kind([nn.Parameter(torch.ones(1))], lr=1) for kind in (Adam, torch.optim.SGD))
    wrapper, hub = OptimWrapper(adam), MessageHub('of a host')
    runner = SimpleNamespace(
        param_schedulers=None, optim_wrapper=wrapper, message_hub=hub, _load_from='a', _resume=True
    )
    with (
        pytest.raises(InputError, match="'a' lacks 'betas' of the optimizer, the config has Adam;"),
        checked_resume(runner),
    ):
        adam.load_state_dict(sgd.state_dict())


def test_the_model_of_a_run():
    from mmengine.model import MMDistributedDataParallel

    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = inner = nn.Linear(2, 2)
    assert unwrapped(wrapper) is inner
    assert unwrapped(inner) is inner
    with pytest.raises(InputError, match=r'^custom_hooks: SomeHook expects a MobileOne'):
        has_branches(inner, 'SomeHook')
    model = MobileOne(TINY)
    for part, expected in ((nn.Identity(), True), (model.stage1, True), (model, False)):
        reparameterize_model(part.eval(), inplace=True)
        assert has_branches(model, '') is expected


def test_datasets_with_a_pipeline():
    first, second = SimpleNamespace(pipeline=1), SimpleNamespace(pipeline=2, dataset=None)
    outer = SimpleNamespace(dataset=first, pipeline=3)
    several = SimpleNamespace(datasets=[outer, SimpleNamespace(dataset=second), object()])
    assert list(datasets_inside(several)) == [outer, first, second]
