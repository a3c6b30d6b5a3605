"""EMA and deploy in any order: one form for a model and its average, or one clear line."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from torch import nn

from mobileone_mm import MobileOne, convert_to_deploy, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.average_check import AverageCheckHook, check_averages
from mobileone_mm.hooks.deploy_eval import DeployEvalHook
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.forms import fuse_state
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import EMA, Do, assert_same, log_of


def fuse(when, *parts):
    """A hook that deploys parts of a run at some point, as a hook of a user's own might."""

    def fuse_parts(runner):
        models = dict(model=runner.model)
        models.update(('average', h.ema_model) for h in runner.hooks if isinstance(h, EMAHook))
        for model in (models[part] for part in parts):
            training = model.training
            reparameterize_model(model.eval(), inplace=True).train(training)

    return Do(when, fuse_parts, 'VERY_HIGH')


@pytest.mark.parametrize(
    ('parts', 'line'),
    [
        (
            ['model'],
            r'^EMAHook: the model is in deploy form, its average in training form \(the first '
            r"difference is 'backbone\.stage0\.branch\S+'\); .*DeployEvalHook",
        ),
        (['average'], 'model is in training form, its average in deploy form'),
        (['model', 'average'], 'the average would no longer change'),
    ],
)
@pytest.mark.parametrize(
    ('when', 'ema'),
    [
        ('before_train', dict(update_buffers=False)),
        ('after_train_iter', dict(update_buffers=True, ema_type='StochasticWeightAverage')),
        ('after_train_epoch', dict(update_buffers=True, ema_type='MomentumAnnealingEMA')),
        ('before_val_epoch', dict(update_buffers=False)),
    ],
)
def test_fused_after_the_average_was_set_up(make_runner, when, ema, parts, line):
    runner = make_runner(dict(type='EMAHook', **ema), fuse(when, *parts), kind=Runner)
    with pytest.raises(InputError, match=line) as caught:
        runner.train()
    assert '\n' not in str(caught.value)


def test_both_in_deploy_form_from_the_start(make_runner, tmp_path):
    """The order that is right: the average is made of the fused model, which is evaluated as it is."""
    model = make_runner().model
    reparameterize_model(model.eval(), inplace=True)
    runner = make_runner(EMA, dict(type=DeployEvalHook), model=model, kind=Runner, name='deploy')
    runner.train()
    assert runner.model is model
    assert 'nothing to fuse' in log_of(tmp_path / 'deploy')
    checkpoint = read_checkpoint(tmp_path / 'deploy' / 'epoch_2.pth')
    assert form_of(checkpoint['state_dict']) == 'deploy'
    assert form_of(checkpoint['ema_state_dict']) == 'deploy'


def test_the_check_is_needed(make_runner):
    """mmengine by itself ends in the middle of a swap, with a size."""
    with pytest.raises(RuntimeError, match='the broadcast shape'):
        make_runner(dict(type='EMAHook'), fuse('before_val_epoch', 'model'), epochs=1).train()


def test_a_teacher_of_another_form_than_its_student():
    model = torch.nn.Module()
    arch = dict(num_blocks=(1, 1, 1, 1), width_factor=(0.0625,) * 4)
    model.student = MobileOne(arch).eval()
    model.teacher = reparameterize_model(model.student)
    hook = type('MeanTeacherHook', (Hook,), {})()
    runner = SimpleNamespace(model=model, hooks=[hook])
    check = AverageCheckHook()
    line = '^MeanTeacherHook: the model is in training form, its average in deploy'
    for moment in ('train', 'val_epoch', 'test_epoch', 'save_checkpoint'):
        more = dict(checkpoint={}) if moment == 'save_checkpoint' else {}
        with pytest.raises(InputError, match=line):
            getattr(check, f'before_{moment}')(runner, **more)
    model.student = reparameterize_model(model.student)
    check_averages(runner)


def test_what_is_no_average():
    """An EMAHook without its model, a hook for a teacher without one, a teacher without the hook."""
    model, average = MobileOneBlock(4, 4, 3), nn.Module()
    average.student, average.teacher = model, reparameterize_model(model.eval())
    teacher = type('MeanTeacherHook', (Hook,), {})()
    check_averages(SimpleNamespace(model=model, hooks=[EMAHook(), teacher]))
    check_averages(SimpleNamespace(model=average, hooks=[EMAHook()]))


def without_prefix(state):
    return {key[7:]: value for key, value in state.items() if key.startswith('module.')}


EMA_LINES = """
custom_hooks = [dict(type='{kind}', momentum=0.3, update_buffers=True)]
train_dataloader.update(batch_size=2)
"""


@pytest.mark.parametrize(  # mmpretrain's own, which takes raw weights from files; mmengine's
    'kind', ['EMAHook', pytest.param('mmengine.EMAHook', marks=pytest.mark.slow)]
)
def test_a_file_with_ema(train, tool, tmp_path, kind):
    """Fine-tuning its deploy form, testing and converting it take the averaged weights."""
    lines = EMA_LINES.format(kind=kind)
    source = train('cls', lines) / 'epoch_1.pth'
    options = ['model.backbone.deploy=True', f'load_from={source}', 'optim_wrapper.optimizer.lr=0']
    options += ['optim_wrapper.optimizer.weight_decay=0', 'param_scheduler=None']
    tuned = train('cls', lines, '--cfg-options', *options, name='tuned') / 'epoch_1.pth'
    content, got = read_checkpoint(source), read_checkpoint(tuned)
    wanted = fuse_state(content['state_dict'])
    assert_same(got['state_dict'], wanted)
    assert_same(without_prefix(got['ema_state_dict']), wanted)
    config = tmp_path / 'cls.py'
    test = ('test', config, source, '--work-dir', tmp_path / 'test', '--cfg-options', options[0])
    assert tool(*test) == 0

    convert_to_deploy(config, source, tmp_path / 'out.pth')
    got = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    raw = fuse_state(without_prefix(content['ema_state_dict']))
    assert got.keys() == wanted.keys() == raw.keys()
    key = 'backbone.stage1.1.branch_reparam.weight'
    assert torch.equal(got[key], wanted[key])
    assert not torch.allclose(got[key], raw[key], rtol=1e-3)
