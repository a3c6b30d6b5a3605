"""Hooks of one duty each, and the arguments of all hooks."""

import random
from collections import deque
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmpretrain.structures import DataSample
from PIL import Image
from torch import nn

from mobileone_mm.distill.views import StoredView
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.best_deploy import BestDeployHook
from mobileone_mm.hooks.channels_last import ChannelsLastHook
from mobileone_mm.hooks.checkpoint import CheckpointHook
from mobileone_mm.hooks.curriculum import CurriculumHook
from mobileone_mm.hooks.deploy_eval import DeployEvalHook
from mobileone_mm.hooks.iteration_seed import IterationSeedHook
from mobileone_mm.hooks.prediction_samples import PredictionSamplesHook
from mobileone_mm.hooks.recalibrate import RecalibrateHook
from mobileone_mm.hooks.schedule_log import ScheduleLogHook
from mobileone_mm.hooks.teacher_outputs import TeacherOutputsCheckHook
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.mmengine_loader import use_safe_loader

from ..training.conftest import Accuracy, log_of


def drawn(seed, iteration):
    """One number of each generator after the hook."""
    IterationSeedHook().before_train_iter(SimpleNamespace(seed=seed, iter=iteration), 0)
    return random.random(), np.random.rand(), float(torch.rand(()))


def test_iteration_seeds():
    first = drawn(0, 5)
    assert drawn(0, 5) == first
    for other in (drawn(0, 6), drawn(1, 5), drawn(5, 0)):
        assert not set(other) & set(first)


def test_iteration_seeds_of_the_gpu(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', seeds.append)
    drawn(0, 5)
    assert not seeds
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    drawn(0, 5)
    assert len(seeds) == 1


def logged(*decays, wrap=True):
    """The scalars that the hook logs for parameter groups with these weight decays."""
    hub = MessageHub('schedule_log')
    hub.log_scalars.clear()
    groups = [dict(params=[nn.Parameter(torch.ones(1))], weight_decay=d) for d in decays]
    wrappers = [OptimWrapper(torch.optim.SGD(groups[i::2], lr=1)) for i in (0, 1) if groups[i::2]]
    wrapper = (
        OptimWrapperDict(**{str(i): w for i, w in enumerate(wrappers)}) if wrap else wrappers[0]
    )
    runner = SimpleNamespace(optim_wrapper=wrapper, message_hub=hub)
    ScheduleLogHook().before_train_iter(runner, 0)
    return {key: value.current() for key, value in hub.log_scalars.items()}


def test_logged_weight_decay():
    key = 'train/weight_decay'
    assert logged(0.5, wrap=False) == {key: 0.5}
    assert logged(0.5, 0.5) == {key: 0.5}
    assert logged(0.5, 0.25, 0.125) == {key: 0.5, f'{key}_min': 0.125}
    without = SimpleNamespace(optimizer=SimpleNamespace(param_groups=[dict(lr=1)]))
    ScheduleLogHook().before_train_iter(SimpleNamespace(optim_wrapper=without), 0)


def test_contiguous_checkpoints_and_resumed_state():
    last = torch.rand(4, 3, 3, 3).to(memory_format=torch.channels_last)
    other = [last.clone(), dict(deep=last.clone(), number=3)]
    state = dict(a=last)  # has the versions of the layers as an attribute
    checkpoint = dict(
        state_dict=state, ema_state_dict=dict(a=last), optimizer=dict(state=other), meta=last
    )
    ChannelsLastHook().before_save_checkpoint(None, checkpoint)
    assert checkpoint['state_dict'] is state
    other = checkpoint['optimizer']['state']
    for tensor in (state['a'], checkpoint['ema_state_dict']['a'], other[0], other[1]['deep']):
        assert tensor.is_contiguous()
        assert torch.equal(tensor, last)
    assert other[1]['number'] == 3
    ChannelsLastHook().before_save_checkpoint(None, dict(state_dict={}))  # no EMA, no optimizer

    parameter = nn.Parameter(last.clone())
    optimizer = torch.optim.SGD([parameter], lr=1, momentum=0.9)
    momentum = torch.rand(4, 3, 3, 3, dtype=torch.float64)
    step = torch.tensor(3.0)
    optimizer.state[parameter] = dict(momentum_buffer=momentum, step=step, count=3)
    runner = SimpleNamespace(optim_wrapper=SimpleNamespace(optimizer=optimizer))
    ChannelsLastHook().before_train(runner)
    ChannelsLastHook().before_train(SimpleNamespace(optim_wrapper=None))  # as of several optimizers
    state = optimizer.state[parameter]
    assert state['momentum_buffer'].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(state['momentum_buffer'], momentum)
    assert state['momentum_buffer'].dtype == torch.float64
    assert state['step'] is step
    assert state['count'] == 3


def test_kept_checkpoints_of_a_resumed_run(make_runner, tmp_path):
    use_safe_loader()  # as the tools do; mmengine 0.10.7 by itself cannot read its own files
    resume = dict(resume=True, load_from=str(tmp_path / 'run' / 'epoch_2.pth'))
    for epochs, more in ((2, {}), (3, resume)):
        make_runner(kind=Runner, epochs=epochs, checkpoint=dict(max_keep_ckpts=2), **more).train()
    found = {file.stem for file in (tmp_path / 'run').glob('epoch_*.pth')}
    assert found == {'epoch_2', 'epoch_3'}


@pytest.mark.parametrize(
    ('ids', 'keep', 'step', 'main', 'listed', 'removed'),
    [
        ([2], 1, 3, True, [3], [2]),
        ([1, 2], 2, 3, True, [2, 3], [1]),
        ([1, 2], 2, 3, False, [2, 3], []),
        ([1, 2], 2, 2, True, None, []),  # the same step again
        ([1, 2], 3, 3, True, [1, 2, 3], []),
        ([7, 8], 2, 9, True, [8, 9], []),  # the file of 7 is not there
        ([], -1, 3, True, None, []),
        ([], 0, 3, True, None, []),
    ],
)
def test_the_oldest_checkpoint_goes_last(ids, keep, step, main, listed, removed, monkeypatch):
    monkeypatch.setattr('mobileone_mm.hooks.checkpoint.is_main_process', lambda: main)
    hook, hub, events = CheckpointHook(max_keep_ckpts=keep), MessageHub('kept'), []
    hook.keep_ckpt_ids = deque(ids, keep if keep > 0 else None)
    hook.out_dir, hook.filename_tmpl = 'dir', '{}.pth'
    hook.file_backend = SimpleNamespace(
        join_path=lambda *parts: '/'.join(parts),
        isfile=lambda path: path != 'dir/7.pth',
        remove=events.append,
    )

    def save(self, runner, step, meta):
        events.append((step, meta, self.max_keep_ckpts > 0, hub.get_info('keep_ckpt_ids')))

    monkeypatch.setattr(MMEngineCheckpointHook, '_save_checkpoint_with_step', save)
    runner = SimpleNamespace(message_hub=hub, model=nn.Identity(), hooks=[])
    hook._save_checkpoint_with_step(runner, step, {})
    assert events == [(step, {}, False, listed), *(f'dir/{number}.pth' for number in removed)]
    assert hook.max_keep_ckpts == keep


@pytest.mark.parametrize(
    ('best', 'metrics'), [('auto', dict(loss=1)), (None, dict(loss=1)), ('top1', {})]
)
def test_metrics_that_the_checkpoint_hook_leaves_to_mmengine(best, metrics, monkeypatch):
    calls = []
    monkeypatch.setattr(MMEngineCheckpointHook, 'after_val_epoch', lambda *args: calls.append(args))
    hook, runner = CheckpointHook(save_best=best), SimpleNamespace(model=nn.Identity(), hooks=[])
    hook.after_val_epoch(runner, metrics)
    assert calls == [(hook, runner, metrics)]


def test_arguments_of_the_checkpoint_hook():
    with pytest.raises(TypeError, match=r"CheckpointHook.*unexpected keyword argument 'intervall'"):
        CheckpointHook(interval=1, intervall=2)
    hook = CheckpointHook(save_best=['top1', 'top5'])
    with pytest.raises(InputError, match=r"save_best: got 'top5'; expected .*: top1, loss"):
        hook.after_val_epoch(None, dict(top1=1.0, loss=2.0))


@pytest.mark.parametrize('rule', ['greater', 'less'])
def test_a_metric_that_is_nan_or_infinite_is_never_the_best(
    rule, make_runner, tmp_path, monkeypatch
):
    """Neither in the run nor as the score of a resumed one."""
    scores = iter([float('inf'), float('nan'), 5.0, float('-inf')])
    checkpoint = dict(save_best='score', rule=rule)
    runner = make_runner(kind=Runner, epochs=4, checkpoint=checkpoint)
    monkeypatch.setattr(Accuracy, 'compute_metrics', lambda self, results: dict(score=next(scores)))
    runner.message_hub.update_info('best_score', float('nan'))
    runner.train()
    assert [path.name for path in (tmp_path / 'run').glob('best*')] == ['best_score_epoch_3.pth']
    log = log_of(tmp_path / 'run')
    for value in ('inf', 'nan', '-inf'):
        assert f"The metric 'score' of save_best is {value}; the best checkpoint stays" in log


@pytest.mark.parametrize(
    ('best', 'metrics', 'said'),
    [
        ('auto', dict(speed=1.0), r"rule: got None; save_best='auto' takes 'speed'"),
        (
            'top1',
            dict(top1=[1.0, 2.0]),
            r"save_best: 'top1' has 2 values; expected a metric with one",
        ),
    ],
)
def test_metrics_that_cannot_be_compared(best, metrics, said):
    with pytest.raises(InputError, match=said):
        CheckpointHook(save_best=best).after_val_epoch(None, metrics)


@pytest.mark.parametrize(
    ('hook', 'argument', 'wrong'),
    [
        (BestDeployHook, 'tolerance', (0, 1, 2)),
        (partial(CurriculumHook, [dict(begin=0, strength=1)]), 'total', (0, True)),
        (DeployEvalHook, 'verify', ('sometimes', True, 0)),
        (DeployEvalHook, 'batches', (0,)),
        (DeployEvalHook, 'tolerance', (0, 1)),
        (DeployEvalHook, 'metric_tolerance', (-1,)),
        (PredictionSamplesHook, 'num', (0, True)),
        (PredictionSamplesHook, 'score_thr', (2,)),
        (RecalibrateHook, 'num_batches', (0, 1.5, True, 'x')),
    ],
)
def test_wrong_arguments(hook, argument, wrong):
    for value in wrong:
        with pytest.raises((TypeError, ValueError), match=f'^{argument}: got {value!r}; expected'):
            hook(**{argument: value})


def test_arguments_at_their_limits():
    assert CurriculumHook([dict(begin=0, strength=1)], total=1).total == 1
    assert (RecalibrateHook().num_batches, RecalibrateHook(1).num_batches) == (50, 1)
    assert (PredictionSamplesHook().num, PredictionSamplesHook().score_thr) == (8, 0.3)
    assert PredictionSamplesHook(num=1, score_thr=1).score_thr == 1
    for given in ((2, 1e-4, 0.01), (1, 0.5, 0)):
        hook = DeployEvalHook('first', *given) if given[0] == 1 else DeployEvalHook()
        assert (hook.batches, hook.tolerance, hook.metric_tolerance) == given


def test_prediction_samples_are_spread_over_the_batches(tmp_path, monkeypatch):
    painter, painters = SimpleNamespace(draw=lambda image, sample: (image.shape, sample)), []
    module = 'mobileone_mm.hooks.prediction_samples'
    monkeypatch.setattr(f'{module}.Painter', lambda *args: painters.append(args) or painter)
    names, samples = [], []
    for place in range(5):
        samples.append(DataSample(metainfo=dict(img_path=str(tmp_path / f'{place}.png'))))
        samples[-1].set_pred_score(torch.ones(2))
        Image.new('RGB', (4, 4)).save(samples[-1].img_path)
    runner = SimpleNamespace(
        val_dataloader=SimpleNamespace(sampler=samples, dataset=SimpleNamespace(metainfo={})),
        visualizer=SimpleNamespace(add_image=lambda *args: names.append(args)),
        iter=7,
    )
    hook = PredictionSamplesHook(num=3)
    hook.after_val_iter(runner, outputs=samples)  # a validation has not begun
    for _ in range(2):
        hook.before_val_epoch(runner)
        for start in (0, 2, 4):
            hook.after_val_iter(runner, outputs=samples[start : start + 2])
            hook.after_val_iter(runner)
    drawn = [(f'val_00000{i}_{i}', ((4, 4, 3), samples[i]), 7) for i in (0, 2, 4)]
    assert names == 2 * drawn
    assert painters == 2 * [({}, 0.3)]
    # Not drawn: a sample without a prediction, and an image that cannot be read.
    hook.before_val_epoch(runner)
    samples[2].set_metainfo(dict(img_path=str(tmp_path / 'missing.png')))
    hook.after_val_iter(runner, outputs=[DataSample(metainfo=samples[0].metainfo), *samples[1:]])
    assert names == [*2 * drawn, drawn[2]]
    # One that cannot be drawn does not end the training; it is named once.
    lines, draw = [], painter.draw
    runner.logger = SimpleNamespace(warning=lines.append)
    painter.draw = lambda image, sample: 1 / 0 if sample is samples[4] else draw(image, sample)
    for _ in range(2):
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, outputs=samples)
        hook.after_val_epoch(runner)
    assert names == [*2 * drawn, drawn[2], drawn[0], drawn[0]]
    (line,) = lines
    assert (
        line == f"1 images could not be drawn: '{samples[4].img_path}' (ZeroDivisionError: "
        'division by zero)'
    )
    hook.before_val_epoch(runner)
    monkeypatch.setattr(f'{module}.is_main_process', lambda: False)
    hook.after_val_iter(runner, outputs=samples)
    assert len(names) == 9


@pytest.mark.parametrize('main', [True, False])
def test_stored_outputs_are_looked_up_before_the_first_iteration(main, monkeypatch):
    monkeypatch.setattr('mobileone_mm.hooks.teacher_outputs.is_main_process', lambda: main)
    view, lines = StoredView.__new__(StoredView), []
    view.stored = SimpleNamespace(
        find='abc'.index, read=lambda row, view: None if row in unread else view, views=[5]
    )

    class Stored(list):
        pipeline = Compose([lambda results: results, view])

        def get_data_info(self, index):
            return dict(img_path=self[index])

    def start(*datasets):
        wrapper = SimpleNamespace(datasets=datasets)
        loader = SimpleNamespace(dataset=wrapper)
        logger = SimpleNamespace(warning=lines.append)
        TeacherOutputsCheckHook().before_train(
            SimpleNamespace(train_dataloader=loader, logger=logger)
        )

    unread = ()
    start(Stored('ab'), Stored('c'))
    assert not lines
    unread = (1, 2)
    start(Stored('ab'), Stored('c'))
    assert [line.startswith('2 images') and line.endswith("such as 'b'") for line in lines] == (
        [True] * main
    )
    with pytest.raises(ValueError, match='substring') if main else nullcontext():
        start(Stored('ax'))  # no stored outputs
