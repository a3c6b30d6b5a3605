"""Validation in deploy form leaves the training alone, proves itself, and is faster."""

import copy
import re
import statistics

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import ValLoop
from mmengine.structures import BaseDataElement
from torch import nn

from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.benchmark.timer import interleaved
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.hooks import deploy_eval
from mobileone_mm.hooks.deploy_eval import DeployEvalHook
from mobileone_mm.reparam.surgery import unfused_blocks
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import Accuracy, Do, Images, assert_same, log_of

EMA = dict(type='EMAHook', momentum=0.3, update_buffers=True)


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


class TwoPasses(ValLoop):
    """Goes through the data twice with another setting of the model, as mmdet's loop for teachers."""

    def run(self):
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        model, metrics = self.runner.model, {}
        for part in ('teacher', 'student'):
            model.settings['predict_on'] = part
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
                assert self.runner.model.settings['predict_on'] == part
            found = self.evaluator.evaluate(len(self.dataloader.dataset))
            metrics.update({f'{part}/{name}': value for name, value in found.items()})
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics


def test_a_loop_of_several_passes(make_runner, tmp_path):
    watch = Watch()
    runner = make_runner(dict(type=DeployEvalHook), watch, epochs=1)
    runner.model.settings = {}
    runner._val_loop = dict(type=TwoPasses)
    runner.train()
    assert watch.forms == ['deploy'] * 6
    assert 'the loop gives no metrics to compare' in log_of(tmp_path / 'run')


@pytest.mark.parametrize('error', [KeyboardInterrupt(), RuntimeError('out of memory')])
def test_the_model_comes_back_when_validation_breaks(make_runner, error):
    def stop(runner):
        assert form_of(runner.model.state_dict()) == 'deploy'
        raise error

    runner = make_runner(DeployEvalHook(), Do('after_val_iter', stop))
    model = runner.model
    with pytest.raises(type(error)):
        runner.train()
    assert runner.model is model
    assert next(unfused_blocks(model), None) is not None
    # The next validation starts afresh.
    runner._hooks = [h for h in runner._hooks if not isinstance(h, Do)]
    assert runner.val_loop.run()['top1'] >= 0
    assert runner.model is model


def spoilt(part):
    """A fusion that goes wrong by a thousandth in one place."""

    def fuse(model, inplace=False):
        fused = reparameterize_model(model, inplace)
        with torch.no_grad():
            fused.get_parameter(part).mul_(1.001)
        return fused

    return fuse


def test_a_wrong_fusion_ends_the_run(make_runner, monkeypatch, tmp_path):
    part = 'backbone.stage2.1.branch_reparam.weight'
    monkeypatch.setattr(deploy_eval, 'reparameterize_model', spoilt(part))
    runner = make_runner(dict(type=DeployEvalHook), checkpoint=dict(save_best='top1'))
    model = runner.model
    line = r"the fused unit 'backbone\.stage2\.1' differs .* by 0\.00"
    with pytest.raises(ProofError, match=line):
        runner.train()
    assert runner.model is model
    assert not list((tmp_path / 'run').glob('best_*'))
    make_runner(dict(type=DeployEvalHook, verify=False), name='blind').train()


def test_a_wrong_metric_ends_the_run(make_runner, monkeypatch):
    """What is outside of the units shows in the metric."""
    monkeypatch.setattr(deploy_eval, 'reparameterize_model', spoilt('head.bias'))
    hook = dict(type=DeployEvalHook, metric_tolerance=1e-6)
    line = r"'logit' is .*, in training form .*metric_tolerance=1e-06"
    with pytest.raises(ProofError, match=line):
        make_runner(hook).train()


@pytest.mark.parametrize(
    ('part', 'value', 'form', 'line'),
    [
        ('conv', torch.nan, 'train', 'Validation is in training form: model: backbone.stage0'),
        ('norm', 3e38, 'deploy', 'Deploy form not proved: no output of a unit is finite.'),
    ],
)
def test_broken_weights_do_not_end_the_run(make_runner, tmp_path, part, value, form, line):
    def spoil(runner):
        runner.model.get_parameter(f'backbone.stage0.branch_scale.{part}.weight').data.fill_(value)

    watch = Watch()
    make_runner(Do('after_train_epoch', spoil), dict(type=DeployEvalHook), watch, epochs=1).train()
    assert set(watch.forms) == {form}
    assert line in log_of(tmp_path / 'run')


def test_units_are_compared_in_full_precision(make_runner, tmp_path):
    """A validation in half precision differs between the forms; the units must not."""
    hook = dict(type=DeployEvalHook, metric_tolerance=100)
    make_runner(hook, epochs=1, val_cfg=dict(fp16=True)).train()  # bfloat16 on the CPU
    line = r'units differ by at most (\S+) .*metrics by at most (\S+) '
    found = re.search(line, log_of(tmp_path / 'run'))
    assert float(found[1]) < 1e-5
    assert float(found[2]) > 1e-5


def test_losses_of_a_validation(make_runner, tmp_path):
    """mmengine takes a last element with losses from what a model returns; so does the comparison."""

    class WithLoss(type(make_runner().model)):
        def forward(self, inputs, label, mode='tensor'):
            outputs = super().forward(inputs, label, mode)
            if mode == 'predict':
                outputs.append(BaseDataElement(loss=dict(loss=torch.ones(()))))
            return outputs

    make_runner(dict(type=DeployEvalHook), model=WithLoss(), name='loss', epochs=1).train()
    assert 'Deploy form proved' in log_of(tmp_path / 'loss')


def test_a_step_that_is_bound_to_the_original(make_runner):
    """torch.compile sets such an attribute; the copy must not evaluate the original through it."""
    runner = make_runner(dict(type=DeployEvalHook, verify=False), epochs=1)
    calls = []
    step = runner.model.val_step
    runner.model.val_step = lambda data: (calls.append(1), step(data))[1]
    runner.train()
    assert not calls


def test_a_place_behind_other_hooks_is_refused(make_runner):
    runner = make_runner(dict(type=DeployEvalHook, priority='LOWEST'))
    with pytest.raises(InputError, match='has the priority LOWEST, behind CheckpointHook'):
        runner.train()


def test_models_that_it_cannot_fuse_are_refused(make_runner):
    runner = make_runner(dict(type=DeployEvalHook))
    runner.model.backbone = nn.Conv2d(3, 8, 1)
    with pytest.raises(InputError, match='expects a MobileOne of this package'):
        runner.train()
    runner.model.__class__ = type('FullyShardedDataParallel', (type(runner.model),), {})
    with pytest.raises(InputError, match='cannot copy a model inside FullyShardedDataParallel'):
        runner.train()


LINES = "custom_hooks = [dict(type='mobileone_mm.DeployEvalHook')]\n"


@pytest.mark.parametrize('task', ['det', 'seg'])  # cls: test_best_deploy.py
def test_other_hosts(task, train):
    log = log_of(train(task, LINES, val=True))
    assert 'Deploy form proved: units differ by at most' in log


def test_exit_codes(train, refused, tiny_config, monkeypatch, capsys):
    options = ('--cfg-options', 'custom_hooks.0.verify=never')
    line = refused('train', tiny_config('cls', LINES), *options)
    assert line.endswith(
        "custom_hooks.0: DeployEvalHook: verify: got 'never'; expected 'first', 'always' or False"
    )
    part = 'backbone.stage1.0.branch_reparam.weight'
    monkeypatch.setattr(deploy_eval, 'reparameterize_model', spoilt(part))
    train('cls', LINES, val=True, code=1)
    assert "the fused unit 'backbone.stage1.0' differs" in capsys.readouterr().err


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
