"""The parts of DeployEvalHook by themselves: what it compares, judges and leaves alone."""

import math
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import ValLoop
from mmengine.structures import BaseDataElement
from torch import nn

from mobileone_mm import reparameterize_model
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.hooks import deploy_eval
from mobileone_mm.hooks.deploy_eval import DeployEvalHook, _Reference
from mobileone_mm.models import MobileOneBlock

GOOD = [('a', 0.1)]  # the worst unit of a process


class Evaluator:
    """Keeps what it gets, and returns given metrics for five images."""

    def __init__(self, expected=()):
        self.expected, self.seen = dict(expected), []

    def process(self, data_samples, data_batch=None):
        self.seen.append((data_samples, data_batch))

    def evaluate(self, size):
        return self.expected if size == 5 else {}


def judge(monkeypatch, worst, expected, metrics, passes=1):
    """The line about a validation with these worst units of all processes and these metrics."""
    monkeypatch.setattr(deploy_eval, 'all_gather_object', lambda _: worst)
    reference = SimpleNamespace(worst=None, passes=passes, evaluator=Evaluator(expected))
    lines = []
    runner = SimpleNamespace(
        logger=SimpleNamespace(info=lines.append, warning=lines.append),
        val_dataloader=SimpleNamespace(dataset=range(5)),
    )
    DeployEvalHook(tolerance=0.5, metric_tolerance=0.25)._judge(runner, reference, metrics)
    (line,) = lines
    return line


@pytest.mark.parametrize(
    ('worst', 'expected', 'metrics', 'line'),
    [
        (
            [('b', 0.1), None, ('a', 0.5)],
            dict(top1=1.0, loss=2.0),
            dict(top1=torch.tensor(1.25), loss=2.0, time=9),
            'units differ by at most 0.5 (allowed: 0.5), metrics by at most 0.25 (allowed: 0.25).',
        ),
        (GOOD, {}, {}, 'metrics by at most 0 (allowed'),
        (GOOD, dict(table=['x'], mAP=math.nan), dict(mAP=math.nan), 'metrics by at most 0 '),
        ([None, None], {}, {}, 'Deploy form not proved: no output of a unit is finite.'),
    ],
)
def test_differences_that_are_allowed(worst, expected, metrics, line, monkeypatch):
    assert line in judge(monkeypatch, worst, expected, metrics)


def test_a_second_pass_has_no_metrics(monkeypatch):
    line = judge(monkeypatch, GOOD, dict(top1=1.0), {}, passes=2)
    assert line.endswith('; the loop gives no metrics to compare.')


@pytest.mark.parametrize(
    ('worst', 'expected', 'metrics', 'line'),
    [
        ([('b', 0.1), ('a', 0.6)], {}, {}, "the fused unit 'a' differs from its branches by 0.6 "),
        ([('a', math.nan)], {}, {}, "'a' differs from its branches by nan"),
        (GOOD, dict(zoo=1, loss=2), dict(zoo=1.1, loss=2.5), "'loss' is 2.5, in training form 2 "),
        (GOOD, dict(top1=1.0), {}, "'top1' is nan, in training form 1 "),
    ],
)
def test_differences_that_end_a_run(worst, expected, metrics, line, monkeypatch):
    with pytest.raises(ProofError, match=line):
        judge(monkeypatch, worst, expected, metrics)


class Model(nn.Sequential):
    """Two units; a step writes into its batch, draws a number and notes its precision."""

    def __init__(self, *last):
        super().__init__(MobileOneBlock(4, 4, 1), MobileOneBlock(4, 4, 1))
        self.last = last

    def val_step(self, batch):
        batch.append(torch.rand(1))
        one = torch.ones(1, 1)
        return [((one @ one).dtype, torch.is_grad_enabled()), *self.last]


@pytest.mark.parametrize(
    ('settings', 'dtype'),
    [({}, torch.float32), (dict(fp16=False), torch.float32), (dict(fp16=True), torch.bfloat16)],
)
@pytest.mark.parametrize(
    ('last', 'kept'), [((), 0), ((BaseDataElement(loss=1),), 0), ((BaseDataElement(label=1),), 1)]
)
def test_a_batch_of_the_reference(settings, dtype, last, kept):
    evaluator, batch, model = Evaluator(), [], Model(*last)
    reference = _Reference(SimpleNamespace(evaluator=evaluator, **settings))
    assert (reference.used, reference.passes) == (False, 0)
    state = torch.get_rng_state()
    reference.run(model, None, batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert not batch
    assert not evaluator.seen
    ((outputs, written),) = reference.evaluator.seen
    assert outputs == [(dtype, False), *last[:kept]]
    assert len(written) == 1
    assert (reference.used, reference.worst) == (True, None)


def test_the_worst_unit_of_all_batches(monkeypatch):
    model = Model().eval()
    fused = reparameterize_model(model)
    reference = _Reference(SimpleNamespace(evaluator=Evaluator()))
    for found, worst in (
        ({'0': (0.9, 0.1), '1': (0.1, 0.3)}, ('1', 0.3)),
        ({'0': (0.9, 0.2)}, ('1', 0.3)),
        ({'0': (0.1, 0.5), '1': (0.9, 0.4)}, ('0', 0.5)),
    ):

        @contextmanager
        def differences(plain, units, found=found):
            assert plain is model
            assert units == {'0': fused[0], '1': fused[1]}
            yield found

        monkeypatch.setattr(deploy_eval, 'unit_differences', differences)
        reference.run(model, fused, [])
        assert reference.worst == worst


def test_the_random_state_of_a_gpu_is_kept(monkeypatch):
    devices = []
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 3)
    monkeypatch.setattr(torch.random, 'fork_rng', lambda d: devices.append(d) or nullcontext())
    _Reference(SimpleNamespace(evaluator=Evaluator())).run(Model(), None, [])
    assert devices == [[3]]


def test_annotations_are_shared():
    evaluator = Evaluator()
    evaluator.metrics = [SimpleNamespace(_coco_api=['large'], results=[]), SimpleNamespace()]
    copied = _Reference(SimpleNamespace(evaluator=evaluator)).evaluator.metrics[0]
    assert copied._coco_api is evaluator.metrics[0]._coco_api
    assert copied.results is not evaluator.metrics[0].results


def run_of(model, hooks=()):
    lines, loop = [], ValLoop.__new__(ValLoop)
    loop.run = Mock()
    return SimpleNamespace(
        model=model, hooks=list(hooks), _val_loop=loop, lines=lines,
        val_loop=SimpleNamespace(evaluator=Evaluator()),
        logger=SimpleNamespace(info=lines.append, warning=lines.append),
    )  # fmt: skip


def test_the_start_of_a_run():
    for loop in (None, {}):  # no validation, or a test
        DeployEvalHook().before_run(SimpleNamespace(_val_loop=loop))
    hook, model = DeployEvalHook(), Model().eval()
    for other in (EMAHook(), CheckpointHook()):
        line = f'has the priority HIGHEST, behind {type(other).__name__}'
        with pytest.raises(InputError, match=line):
            hook.before_run(run_of(model, [other, hook]))
    for form in (model, reparameterize_model(model)):
        runner = run_of(form, [hook, EMAHook()])
        run = runner._val_loop.run
        hook.before_run(runner)
        assert ['nothing to fuse' in line for line in runner.lines] == [True] * form[0].deploy
        assert runner._val_loop.run(1, a=2) is run.return_value
        run.assert_called_once_with(1, a=2)
        run.side_effect = KeyboardInterrupt
        hook._open, hook._original, hook._reference = True, model, 'reference'
        with pytest.raises(KeyboardInterrupt):
            runner._val_loop.run()
        assert (hook._open, hook._reference, runner.model) == (False, None, model)
    sharded = type('FullyShardedDataParallel', (nn.Module,), {})()
    for other, line in (
        (nn.Conv2d(3, 8, 1), 'DeployEvalHook expects a MobileOne of this package'),
        (sharded, 'cannot copy a model inside FullyShardedDataParallel'),
    ):
        with pytest.raises(InputError, match=line):
            hook.before_run(run_of(other, [hook]))


@pytest.mark.parametrize(
    ('verify', 'compared'),
    [('first', [True, False]), ('always', [True, True]), (False, [False, False])],
)
def test_which_validations_are_compared(verify, compared):
    hook, model = DeployEvalHook(verify), Model().eval()
    fused, ema = reparameterize_model(model), EMAHook()
    hook.before_val_epoch(run_of(fused))
    assert hook._reference is None
    ema.src_model, ema.ema_model = fused, model  # under any Runner
    with pytest.raises(InputError, match='^EMAHook: .*; one cannot be averaged into the other'):
        hook.before_val_epoch(run_of(fused, [ema]))
    found = []
    for _ in range(2):
        hook.before_val_epoch(run_of(model))
        assert hook._open
        found.append(hook._reference is not None)
        hook._reference = None
    assert found == compared


def test_which_batches_are_compared(monkeypatch):
    hook, model = DeployEvalHook(batches=2), Model().eval()
    model.val_step = print  # as torch.compile sets it: bound to the original
    hook.before_val_iter(None, 0)  # outside of a validation
    runner, runs = run_of(model), []
    hook._open = True
    hook._reference = SimpleNamespace(passes=0, run=lambda *args: runs.append(args), used=True)
    for index in (0, 1, 2):
        hook.before_val_iter(runner, index, index)
    assert (runner.model[0].deploy, model[0].deploy) == (True, False)
    assert 'val_step' not in vars(runner.model)
    assert runs == [(model, runner.model, 0), (model, runner.model, 1), (model, None, 2)]
    model.predict_on = 'student'  # as mmdet's loop for teachers does before its second pass
    hook.before_val_iter(runner, 0, 3)
    assert (hook._reference.passes, runner.model.predict_on) == (2, 'student')
    assert runs[3:] == [(model, runner.model, 3)]

    judged = []
    monkeypatch.setattr(DeployEvalHook, '_judge', lambda *args: judged.append(args[2:]))
    reference = hook._reference
    for used in (False, True):
        hook._reference = reference
        monkeypatch.setattr(deploy_eval, 'all_gather_object', lambda own, used=used: [own, used])
        hook.after_val_epoch(runner)
        assert judged == [(reference, {})] * used
        assert (runner.model, hook._open, hook._reference) == (model, False, None)
    hook.after_val_epoch(runner)  # a validation that is not compared


def test_models_that_are_evaluated_as_they_are():
    """In deploy form, or with weights that cannot be fused; the reference then has no model."""
    hook, broken = DeployEvalHook(), Model().eval()
    fused = reparameterize_model(broken)
    broken[0].branch_conv_list[0].conv.weight.data.fill_(torch.nan)
    for model, warnings in ((broken, ['Validation is in training form: model: 0']), (fused, [])):
        runner = run_of(model)
        hook._open, hook._reference = True, SimpleNamespace(passes=0)
        hook.before_val_iter(runner, 0)
        assert runner.model is model
        assert [line.partition(' cannot be fused')[0] for line in runner.lines] == warnings
