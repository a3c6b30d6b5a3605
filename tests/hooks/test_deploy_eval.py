"""Validation in deploy form leaves the training alone, proves itself, and is faster."""

import copy
import re
import statistics

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from torch import nn

from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.benchmark.timer import interleaved
from mobileone_mm.errors import ProofError
from mobileone_mm.hooks import deploy_eval
from mobileone_mm.hooks.deploy_eval import DeployEvalHook
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import EMA, Accuracy, Do, Images, assert_same, log_of


class Watch(Hook):
    """Notes what a run looks like from inside."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.forms, self.metrics, self.states, self.random = [], [], [], []

    def after_val_iter(self, runner, *_, **__):
        self.evaluated = copy.deepcopy(runner.model.state_dict())
        self.forms.append(form_of(self.evaluated))

    def after_val_epoch(self, runner, metrics=None):
        model = runner.model
        self.metrics.append(dict(metrics))
        self.states.append(
            [(name, module.training) for name, module in model.named_modules()]
            + [(name, p.requires_grad) for name, p in model.named_parameters()]
        )
        self.random.append(torch.get_rng_state())

    def after_train_iter(self, runner, *_, **__):
        self.random.append(torch.get_rng_state())


@pytest.mark.parametrize(
    ('hooks', 'verify', 'proofs'),
    [((EMA,), False, 0), ((), False, 0), ((EMA,), 'first', 1), ((EMA,), 'always', 2)],
)
def test_training_is_the_same_bit_by_bit(make_runner, tmp_path, monkeypatch, hooks, verify, proofs):
    """Weights, averages, optimizer, modes and random state, under mmengine's own Runner."""
    compute, table = Accuracy.compute_metrics, dict(table=['not a number'])
    monkeypatch.setattr(Accuracy, 'compute_metrics', lambda *args: compute(*args) | table)
    seen = {}
    hook = dict(type=DeployEvalHook, verify=verify, batches=1)
    for name, extra in (('without', ()), ('with', (hook,))):
        watch = Watch()
        settings = dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)))
        make_runner(*hooks, *extra, watch, name=name, **settings).train()
        seen[name] = watch, read_checkpoint(tmp_path / name / 'epoch_2.pth')
    (plain, want), (watch, got) = seen['without'], seen['with']
    assert set(plain.forms) == {'train'}
    assert set(watch.forms) == {'deploy'}
    for part in ('state_dict', 'optimizer', *(['ema_state_dict'] if hooks else [])):
        assert_same(got[part], want[part])
    assert plain.states == watch.states
    assert_same(watch.random, plain.random)
    for a, b in zip(plain.metrics, watch.metrics, strict=True):
        assert b['top1'] == a['top1']
        assert b['logit'] == pytest.approx(a['logit'], rel=1e-4)
    line = r'Deploy form proved: units differ by at most (\S+) .*metrics by .*'
    found = re.findall(line, log_of(tmp_path / 'with'))
    assert len(found) == proofs
    assert all(0 < float(worst) < 1e-4 for worst in found)
    assert 'nothing to fuse' not in log_of(tmp_path / 'with')


def test_what_is_evaluated_is_the_average(make_runner, tmp_path):
    """The validation sees the fused average; the best checkpoint has the training form."""
    watch = Watch()
    checkpoint = dict(save_best='top1', rule='greater')
    runner = make_runner(EMA, dict(type=DeployEvalHook), watch, checkpoint=checkpoint, epochs=1)
    runner.train()
    best = read_checkpoint(next((tmp_path / 'run').glob('best_*.pth')))
    last = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')
    assert form_of(best['state_dict']) == 'train'
    for part in ('state_dict', 'ema_state_dict'):
        assert_same(best[part], last[part])
    average = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model.module
    assert_same(watch.evaluated, reparameterize_model(average.eval()).state_dict())
    raw = reparameterize_model(runner.model.eval()).state_dict()
    key = 'backbone.stage0.branch_reparam.weight'
    assert not torch.equal(raw[key], watch.evaluated[key])


def test_hosts_second_evaluation_is_left_alone(make_runner, tmp_path):
    """mmpretrain's EMAHook evaluates the raw weights after the end of the validation."""
    ema = pytest.importorskip('mmpretrain.engine.hooks').EMAHook
    hook = dict(type=ema, momentum=0.3, evaluate_on_ema=True, evaluate_on_origin=True)
    watch = Watch()
    checkpoint = dict(save_best='top1', rule='greater')
    make_runner(hook, dict(type=DeployEvalHook), watch, checkpoint=checkpoint, epochs=1).train()
    assert watch.forms == ['deploy'] * 3 + ['train'] * 3
    best = read_checkpoint(next((tmp_path / 'run').glob('best_*.pth')))
    assert form_of(best['state_dict']) == 'train'


def spoilt(part):
    """A fusion that goes wrong by a thousandth in one place."""

    def fuse(model, inplace=False):
        fused = reparameterize_model(model, inplace)
        with torch.no_grad():
            fused.get_parameter(part).mul_(1.001)
        return fused

    return fuse


@pytest.mark.parametrize(
    ('part', 'tolerance', 'line'),
    [
        ('backbone.stage2.1.branch_reparam.weight', 0.01, r"'backbone\.stage2\.1' .* by 0\.00"),
        ('head.bias', 1e-6, r"'logit' is .*, in training form .*metric_tolerance=1e-06"),
    ],
)
def test_a_wrong_fusion_ends_the_run(part, tolerance, line, make_runner, monkeypatch, tmp_path):
    """What is outside of the units shows in the metric."""
    monkeypatch.setattr(deploy_eval, 'reparameterize_model', spoilt(part))
    hook = dict(type=DeployEvalHook, metric_tolerance=tolerance)
    runner = make_runner(hook, checkpoint=dict(save_best='top1'))
    model = runner.model
    with pytest.raises(ProofError, match=line):
        runner.train()
    assert runner.model is model
    assert not list((tmp_path / 'run').glob('best_*'))
    make_runner(dict(type=DeployEvalHook, verify=False), name='blind').train()


def test_weights_without_a_finite_output_do_not_end_the_run(make_runner, tmp_path):
    def spoil(runner):
        runner.model.backbone.stage0.branch_scale.norm.weight.data.fill_(3e38)

    watch = Watch()
    make_runner(Do('after_train_epoch', spoil), dict(type=DeployEvalHook), watch, epochs=1).train()
    assert set(watch.forms) == {'deploy'}
    assert 'Deploy form not proved: no output of a unit is finite.' in log_of(tmp_path / 'run')


def test_units_are_compared_in_full_precision(make_runner, tmp_path):
    """A validation in half precision differs between the forms; the units must not."""
    hook = dict(type=DeployEvalHook, metric_tolerance=100)
    make_runner(hook, epochs=1, val_cfg=dict(fp16=True)).train()  # bfloat16 on the CPU
    line = r'units differ by at most (\S+) .*metrics by at most (\S+) '
    found = re.search(line, log_of(tmp_path / 'run'))
    assert float(found[1]) < 1e-5
    assert float(found[2]) > 1e-5


@pytest.mark.parametrize('task', ['det', 'seg'])  # cls: test_best_deploy.py
def test_other_hosts(task, train):
    run = train(task, "custom_hooks = [dict(type='mobileone_mm.DeployEvalHook')]\n", val=True)
    assert 'Deploy form proved: units differ by at most' in log_of(run)


@pytest.mark.slow
def test_faster(make_runner, capsys):
    """Medians of interleaved validations of an S0 classifier at 224 px, fusing included."""
    loops = {}
    for name, hooks in (('training', ()), ('deploy', (dict(type=DeployEvalHook, verify=False),))):
        runner = make_runner(*hooks, name=name)
        runner.model.backbone = MobileOne('s0')
        runner.model.head = nn.Linear(1024, 4)
        runner._val_dataloader['dataset'] = Images(64, 224)
        runner.val()
        loops[name] = runner.val_loop.run
    times = interleaved(loops, 7, warm_up=0)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    ratio = medians['deploy'] / medians['training']
    with capsys.disabled():
        print({**medians, 'ratio': round(ratio, 3)})
    assert ratio < 1
