"""EMA and deploy in any order: one form for a model and its average, or one clear line."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import ExponentialMovingAverage

from mobileone_mm import convert_to_deploy, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.average_check import AverageCheckHook, check_averages
from mobileone_mm.hooks.deploy_eval import DeployEvalHook
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.forms import fuse_state
from mobileone_mm.weights.mmengine_loader import use_safe_loader
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

EMA = dict(type='EMAHook', momentum=0.3, update_buffers=True)
KINDS = ['ExponentialMovingAverage', 'StochasticWeightAverage', 'MomentumAnnealingEMA']


class Fuse(Hook):
    """Deploys a part of a run at some point, as a hook of a user's own might."""

    priority = 'VERY_HIGH'

    def __init__(self, when, source=True, average=False) -> None:
        def fuse(runner, *_, **__):
            hook = next((h for h in runner.hooks if isinstance(h, EMAHook)), None)
            for wanted, model in ((source, runner.model), (average, hook and hook.ema_model)):
                if wanted and model:
                    training = model.training
                    reparameterize_model(model.eval(), inplace=True).train(training)

        setattr(self, when, fuse)


MOMENTS = ['before_train', 'after_train_iter', 'after_train_epoch', 'before_val_epoch']


@pytest.mark.parametrize('update_buffers', [True, False])
@pytest.mark.parametrize('when', MOMENTS)
def test_a_model_that_is_fused_under_its_average(make_runner, when, update_buffers):
    ema = dict(type='EMAHook', update_buffers=update_buffers)
    runner = make_runner(ema, Fuse(when), kind=Runner)
    with pytest.raises(InputError, match=(
        r'^EMAHook: the model is in deploy form, its average in training form \(the first '
        r"difference is 'backbone\.stage0\.branch\S+'\); .*DeployEvalHook"
    )) as caught:  # fmt: skip
        runner.train()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('when', MOMENTS)
def test_an_average_that_is_fused_under_its_model(make_runner, when, kind):
    runner = make_runner(
        dict(type='EMAHook', ema_type=kind), Fuse(when, source=False, average=True), kind=Runner
    )
    with pytest.raises(InputError, match='model is in training form, its average in deploy form'):
        runner.train()


def test_both_fused_after_the_average_was_set_up(make_runner):
    runner = make_runner(EMA, Fuse('before_train', average=True), kind=Runner)
    with pytest.raises(InputError, match='the average would no longer change'):
        runner.train()


def test_both_in_deploy_form_from_the_start(make_runner, tmp_path):
    """The order that is right: the average is made of the fused model."""
    model = make_runner().model
    reparameterize_model(model.eval(), inplace=True)
    make_runner(EMA, model=model, kind=Runner, name='deploy').train()
    checkpoint = read_checkpoint(tmp_path / 'deploy' / 'epoch_2.pth')
    assert form_of(checkpoint['state_dict']) == 'deploy'
    assert form_of(checkpoint['ema_state_dict']) == 'deploy'


@pytest.mark.parametrize(
    ('when', 'error'),
    [
        ('before_val_epoch', 'the broadcast shape'),
        ('after_train_epoch', r'branch_\w+\.conv\.weight'),
    ],
)
def test_the_check_is_needed(make_runner, when, error):
    """mmengine by itself ends in the middle of a swap, with a size or a key."""
    hooks = (dict(type='EMAHook'), Fuse(when))
    with pytest.raises((RuntimeError, KeyError), match=error) as caught:
        make_runner(*hooks, epochs=1).train()
    assert not isinstance(caught.value, InputError)


def test_deploy_evaluation_checks_under_any_runner(make_runner):
    runner = make_runner(
        EMA, Fuse('after_train_epoch'), dict(type=DeployEvalHook), checkpoint=dict(interval=-1)
    )
    with pytest.raises(InputError, match='the model is in deploy form, its average in training'):
        runner.train()


def test_a_teacher_of_another_form_than_its_student(make_runner):
    model = torch.nn.Module()
    model.student = make_runner().model
    model.teacher = reparameterize_model(copy.deepcopy(model.student).eval())
    hook = type('MeanTeacherHook', (Hook,), {})()
    runner = SimpleNamespace(model=model, hooks=[hook])
    with pytest.raises(InputError, match='^MeanTeacherHook: the model is in training form'):
        check_averages(runner)
    model.student = reparameterize_model(model.student.eval())
    check_averages(runner)


@pytest.mark.parametrize('moment', ['before_test_epoch', 'before_val_epoch', 'before_train'])
def test_moments_of_the_check(moment):
    model = torch.nn.Module()
    model.student = MobileOneBlock(4, 4, 3).eval()
    model.teacher = reparameterize_model(model.student)
    hook = type('MeanTeacherHook', (Hook,), {})()
    runner = SimpleNamespace(model=model, hooks=[hook])
    with pytest.raises(InputError, match='^MeanTeacherHook'):
        getattr(AverageCheckHook(), moment)(runner)
    with pytest.raises(InputError, match='^MeanTeacherHook'):
        AverageCheckHook().before_save_checkpoint(runner, checkpoint={})


@pytest.mark.parametrize('resume', [True, False])
def test_raw_weights_that_do_not_fit(resume):
    """An error in a resumed run; a new run starts from the averaged weights without them."""
    block, lines = MobileOneBlock(4, 4, 3), []
    state = block.state_dict()
    average = {f'module.{key}': value for key, value in state.items()} | dict(steps=0)
    runner = SimpleNamespace(
        model=block, _resume=resume, _load_from='run.pth', logger=SimpleNamespace(info=lines.append),
        hooks=[EMAHook()],
    )  # fmt: skip
    checkpoint = dict(state_dict=state, ema_state_dict=average)
    AverageCheckHook().after_load_checkpoint(runner, checkpoint)
    assert checkpoint['ema_state_dict'] is average
    checkpoint['state_dict'] = {key: value for key, value in state.items() if 'scale' not in key}
    with pytest.raises(InputError, match='is missing') if resume else nullcontext():
        AverageCheckHook().after_load_checkpoint(runner, checkpoint)
    assert ('ema_state_dict' in checkpoint) is resume
    assert len(lines) == (not resume)
    AverageCheckHook().after_load_checkpoint(runner, dict(state_dict=state))
    # Without EMAHook: a warning if the run is to go on.
    runner.hooks, runner.logger, warnings = [], SimpleNamespace(warning=lines.append), len(lines)
    AverageCheckHook().after_load_checkpoint(runner, dict(state_dict=state, ema_state_dict=average))
    assert len(lines) - warnings == resume


@pytest.fixture
def trained(make_runner, tmp_path):
    """Path and content of a checkpoint with EMA after one epoch of two."""
    make_runner(EMA, kind=Runner, name='source').train()
    path = tmp_path / 'source' / 'epoch_1.pth'
    return path, torch.load(path, weights_only=False)


def fused_average(content):
    raw = {k.removeprefix('module.'): v for k, v in content['ema_state_dict'].items()}
    steps = raw.pop('steps')
    return {**{f'module.{k}': v for k, v in fuse_state(raw).items()}, 'steps': steps}


def resume(make_runner, path, **settings):
    use_safe_loader()  # as the tools do; mmengine 0.10.7 by itself cannot read its own files
    make_runner(EMA, kind=Runner, resume=True, load_from=str(path), name='new', **settings).train()


def test_resume_from_an_average_of_another_form(make_runner, trained, tmp_path):
    _, content = trained
    content['ema_state_dict'] = fused_average(content)
    torch.save(content, tmp_path / 'mixed.pth')
    with pytest.raises(InputError, match=(
        r"^--resume: '.*mixed\.pth': its 'state_dict' is in training form, its 'ema_state_dict' in "
        'deploy form'
    )):  # fmt: skip
        resume(make_runner, tmp_path / 'mixed.pth')


def test_resume_from_weights_of_another_form(make_runner, trained, tmp_path):
    _, content = trained
    content['state_dict'] = fuse_state(content['state_dict'])
    torch.save(content, tmp_path / 'mixed.pth')
    with pytest.raises(
        InputError, match="'state_dict' is in deploy form, its 'ema_state_dict' in tr"
    ):
        resume(make_runner, tmp_path / 'mixed.pth')


def test_resume_in_another_form_than_the_file(make_runner, trained):
    path, _ = trained
    model = make_runner().model
    reparameterize_model(model.eval(), inplace=True)
    with pytest.raises(InputError, match='it is in training form, the model in deploy form'):
        resume(make_runner, path, model=model)


def test_resume_from_an_average_with_a_tensor_too_few(make_runner, trained, tmp_path):
    _, content = trained
    del content['state_dict']['head.bias']
    torch.save(content, tmp_path / 'mixed.pth')
    with pytest.raises(InputError, match=r"'head\.bias' of its 'ema_state_dict' is missing"):
        resume(make_runner, tmp_path / 'mixed.pth')


def test_resume_of_a_sound_file_goes_on(make_runner, trained, tmp_path):
    path, _ = trained
    resume(make_runner, path)
    want = read_checkpoint(tmp_path / 'source' / 'epoch_2.pth')
    got = read_checkpoint(tmp_path / 'new' / 'epoch_2.pth')
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(value, got[part][key]) for key, value in want[part].items())


EMA_LINES = """
custom_hooks = [dict(type='{kind}', momentum=0.3, update_buffers=True)]
train_dataloader.update(batch_size=2)
"""


@pytest.mark.parametrize(  # mmpretrain's own, which takes raw weights from files; mmengine's
    'kind', ['EMAHook', pytest.param('mmengine.EMAHook', marks=pytest.mark.slow)]
)
def test_fine_tuning_a_deploy_form_from_a_file_with_ema(tiny_config, tool, tmp_path, kind):
    """The averaged weights are fused; the raw ones, of the other form, are left out and said."""
    config = tiny_config('cls', EMA_LINES.format(kind=kind))
    run = tmp_path / 'run'
    assert tool('train', config, '--work-dir', run, '--no-validate') == 0
    source = run / 'epoch_1.pth'
    options = ['model.backbone.deploy=True', f'load_from={source}', 'optim_wrapper.optimizer.lr=0']
    options += ['optim_wrapper.optimizer.weight_decay=0', 'param_scheduler=None']
    tuned = tmp_path / 'tuned'
    arguments = ('train', config, '--work-dir', tuned, '--no-validate', '--cfg-options', *options)
    assert tool(*arguments) == 0
    wanted = fuse_state(read_checkpoint(source)['state_dict'])
    got = read_checkpoint(tuned / 'epoch_1.pth')
    for state in (got['state_dict'], {k[7:]: v for k, v in got['ema_state_dict'].items()}):
        for key, value in wanted.items():
            assert torch.equal(state[key], value), key
    log = next(tuned.glob('*/*.log')).read_text()
    assert 'The raw weights in the checkpoint are not loaded' in log
    assert (
        tool('test', config, source, '--work-dir', tmp_path / 'test', '--cfg-options', options[0])
        == 0
    )


def test_converting_a_file_with_ema_takes_the_average(tiny_config, tool, tmp_path):
    config = tiny_config('cls', EMA_LINES.format(kind='EMAHook'))
    run = tmp_path / 'run'
    assert tool('train', config, '--work-dir', run, '--no-validate') == 0
    content = read_checkpoint(run / 'epoch_1.pth')
    convert_to_deploy(config, run / 'epoch_1.pth', tmp_path / 'out.pth')
    got = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    raw = {k[7:]: v for k, v in content['ema_state_dict'].items() if k.startswith('module.')}
    average, raw = fuse_state(content['state_dict']), fuse_state(raw)
    assert got.keys() == average.keys() == raw.keys()
    key = 'backbone.stage1.1.branch_reparam.weight'
    assert torch.equal(got[key], average[key])
    assert not torch.allclose(got[key], raw[key], rtol=1e-3)


def test_every_run_has_the_check(make_runner):
    kinds = [type(hook) for hook in make_runner(kind=Runner).hooks]
    assert kinds.count(AverageCheckHook) == 1
    assert ExponentialMovingAverage(torch.nn.Linear(2, 2)).avg_parameters  # what the check reads
