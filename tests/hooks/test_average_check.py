"""EMA and deploy in any order: one form for a model and its average, or one clear line."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from mobileone_mm import MobileOne, convert_to_deploy, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.average_check import AverageCheckHook, check_averages
from mobileone_mm.hooks.deploy_eval import DeployEvalHook
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.forms import fuse_state
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

EMA = dict(type='EMAHook', momentum=0.3, update_buffers=True)


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


@pytest.mark.parametrize(
    ('when', 'update_buffers'),
    [
        ('before_train', False),
        ('after_train_iter', True),
        ('after_train_epoch', True),
        ('before_val_epoch', False),
    ],
)
def test_a_model_that_is_fused_under_its_average(make_runner, when, update_buffers):
    ema = dict(type='EMAHook', update_buffers=update_buffers)
    runner = make_runner(ema, Fuse(when), kind=Runner)
    assert [type(hook) for hook in runner.hooks].count(AverageCheckHook) == 1
    with pytest.raises(InputError, match=(
        r'^EMAHook: the model is in deploy form, its average in training form \(the first '
        r"difference is 'backbone\.stage0\.branch\S+'\); .*DeployEvalHook"
    )) as caught:  # fmt: skip
        runner.train()
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('when', 'kind'),
    [
        ('before_train', 'ExponentialMovingAverage'),
        ('after_train_iter', 'StochasticWeightAverage'),
        ('after_train_epoch', 'MomentumAnnealingEMA'),
        ('before_val_epoch', 'ExponentialMovingAverage'),
    ],
)
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


def test_the_check_is_needed(make_runner):
    """mmengine by itself ends in the middle of a swap, with a size."""
    with pytest.raises(RuntimeError, match='the broadcast shape'):
        make_runner(dict(type='EMAHook'), Fuse('before_val_epoch'), epochs=1).train()


def test_deploy_evaluation_checks_under_any_runner(make_runner):
    runner = make_runner(
        EMA, Fuse('after_train_epoch'), dict(type=DeployEvalHook), checkpoint=dict(interval=-1)
    )
    with pytest.raises(InputError, match='the model is in deploy form, its average in training'):
        runner.train()


def test_a_teacher_of_another_form_than_its_student():
    model = torch.nn.Module()
    arch = dict(num_blocks=(1, 1, 1, 1), width_factor=(0.0625,) * 4)
    model.student = MobileOne(arch).eval()
    model.teacher = reparameterize_model(model.student)
    hook = type('MeanTeacherHook', (Hook,), {})()
    runner = SimpleNamespace(model=model, hooks=[hook])
    check = AverageCheckHook()
    for moment, arguments in (
        ('before_train', {}),
        ('before_val_epoch', {}),
        ('before_test_epoch', {}),
        ('before_save_checkpoint', dict(checkpoint={})),
    ):
        with pytest.raises(
            InputError,
            match='^MeanTeacherHook: the model is in training form, its average in deploy',
        ):
            getattr(check, moment)(runner, **arguments)
    model.student = reparameterize_model(model.student)
    check_averages(runner)


EMA_LINES = """
custom_hooks = [dict(type='{kind}', momentum=0.3, update_buffers=True)]
train_dataloader.update(batch_size=2)
"""


@pytest.mark.parametrize(  # mmpretrain's own, which takes raw weights from files; mmengine's
    'kind', ['EMAHook', pytest.param('mmengine.EMAHook', marks=pytest.mark.slow)]
)
def test_a_file_with_ema(tiny_config, tool, tmp_path, kind):
    """Fine-tuning its deploy form, testing and converting it take the averaged weights."""
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
    test = ('test', config, source, '--work-dir', tmp_path / 'test', '--cfg-options', options[0])
    assert tool(*test) == 0

    convert_to_deploy(config, source, tmp_path / 'out.pth')
    got = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    content = read_checkpoint(source)['ema_state_dict']
    raw = fuse_state({k[7:]: v for k, v in content.items() if k.startswith('module.')})
    assert got.keys() == wanted.keys() == raw.keys()
    key = 'backbone.stage1.1.branch_reparam.weight'
    assert torch.equal(got[key], wanted[key])
    assert not torch.allclose(got[key], raw[key], rtol=1e-3)
