"""Runs that diverge: where they end, what they say, and which checkpoints remain."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mobileone_mm.errors import InputError
from mobileone_mm.hooks.loss_check import LossCheckHook, loss_scalers, non_finite_losses
from mobileone_mm.training.divergence import check_weights
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.mmengine_loader import use_safe_loader
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import EMA, Classifier, Do

MEAN = 'backbone.stage0.branch_scale.norm.running_mean'


def damage(name, value=float('nan'), iteration=4, when='after_train_iter'):
    """Return a hook that sets a number of a tensor in the given iteration, the first of an epoch."""

    def function(runner):
        if runner.iter == iteration - 1:
            with torch.no_grad():
                runner.model.state_dict()[name].view(-1)[0] = value

    return Do(when, function, priority='ABOVE_NORMAL')


def files(folder):
    return {path.name for path in folder.glob('run/*.pth')}


def ended(runner, *parts):
    """The run ends with one line that has these parts, and no file holds NaN."""
    with pytest.raises(InputError) as caught:
        runner.train()
    line = str(caught.value)
    assert '\n' not in line
    for part in parts:
        assert part in line, line
    return line


@pytest.mark.parametrize('hooks', [(), (EMA,)])
def test_a_loss_that_is_nan(hooks, make_runner, tmp_path):
    """A weight is NaN after iteration 4, so the loss of iteration 5 is; epoch 1 has three."""
    last = tmp_path / 'run' / 'epoch_1.pth'
    runner = make_runner(
        damage('head.weight'), *hooks, kind=Runner, checkpoint=dict(max_keep_ckpts=1)
    )
    line = ended(
        runner, 'loss is NaN in iteration 5 (epoch 2), at the learning rate 0.05;', 'clip_grad',
        f"the last checkpoint without NaN is '{last}'",
    )  # fmt: skip
    assert 'optim_wrapper.optimizer.lr' in line
    assert files(tmp_path) == {'epoch_1.pth'}
    average = [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]
    assert len(average) == len(hooks)


@pytest.mark.parametrize('checkpoint', [
    dict(max_keep_ckpts=1),
    dict(interval=-1, save_last=False, save_best='top1', rule='greater'),
    dict(interval=3, by_epoch=False, max_keep_ckpts=1),
])  # fmt: skip
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_statistics_that_are_nan_while_the_loss_is_finite(checkpoint, value, make_runner, tmp_path):
    """In training BN uses the statistics of the batch; the checkpoint would be useless."""
    runner = make_runner(damage(MEAN, value), kind=Runner, checkpoint=checkpoint)
    line = ended(runner, f"NaN or Inf in '{MEAN}' after iteration 6 (epoch 2)")
    (left,) = files(tmp_path)
    assert ('best_' in left) == ('save_best' in checkpoint)
    assert f"the last checkpoint without NaN is '{tmp_path / 'run' / left}'" in line
    assert all(map(torch.isfinite, read_checkpoint(tmp_path / 'run' / left)['state_dict'][MEAN]))


def test_weights_that_become_nan_in_a_validation(make_runner, tmp_path):
    """The best checkpoint of the first validation stays."""
    hook = damage(MEAN, iteration=7, when='after_val_iter')
    checkpoint = dict(interval=-1, save_last=False, save_best='top1', rule='greater')
    ended(make_runner(hook, kind=Runner, checkpoint=checkpoint), f"NaN or Inf in '{MEAN}' after")
    (left,) = files(tmp_path)
    assert left.startswith('best_top1_epoch_1')


def test_weights_that_are_nan_are_not_validated(make_runner):
    checkpoint = dict(interval=-1, save_last=False)
    runner = make_runner(damage(MEAN, iteration=1), kind=Runner, checkpoint=checkpoint)
    ended(runner, 'after iteration 3 (epoch 1)')
    assert runner.message_hub.get_info('loop_stage') == 'val'
    assert 'val/top1' not in runner.message_hub.log_scalars


def test_an_average_that_is_nan(make_runner, tmp_path):
    def function(runner):
        (average,) = [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]
        average.state_dict()[f'module.{MEAN}'][0] = float('nan')

    runner = make_runner(EMA, Do('after_train_epoch', function), kind=Runner)
    ended(runner, f"NaN or Inf in 'module.{MEAN}' of EMAHook after iteration 3 (epoch 1)")
    assert not files(tmp_path)


def test_a_checkpoint_of_a_users_hook(make_runner, tmp_path):
    save = Do('after_train_iter', lambda runner: runner.save_checkpoint(runner.work_dir, 'own.pth'))
    runner = make_runner(damage(MEAN, iteration=1), save, kind=Runner)
    ended(runner, 'these weights are not saved')
    assert not files(tmp_path)


class Masked(Classifier):
    """A classifier with buffers that are not finite on purpose, and one of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('mask', torch.triu(torch.full((3, 3), -torch.inf), 1))
        self.register_buffer('empty', torch.full((2,), torch.nan))
        self.register_buffer('count', torch.zeros(2, dtype=torch.long))


def test_buffers_that_are_not_finite_on_purpose(make_runner, tmp_path):
    """A run writes them and resumes from them; NaN in another tensor is refused."""
    use_safe_loader()
    ema, check = dict(EMA, update_buffers=False), dict(type='mobileone_mm.CheckpointCheckHook')
    make_runner(ema, model=Masked(), kind=Runner, epochs=1).train()
    resume = dict(resume=True, load_from=str(tmp_path / 'run' / 'epoch_1.pth'))
    make_runner(ema, check, model=Masked(), kind=Runner, **resume).train()
    state = read_checkpoint(tmp_path / 'run' / 'epoch_2.pth')['state_dict']
    assert state['mask'].isinf().sum() == 3

    broken = read_checkpoint(tmp_path / 'run' / 'epoch_2.pth')
    for part in ('state_dict', 'ema_state_dict'):
        next(v for k, v in broken[part].items() if k.endswith(MEAN))[0] = float('nan')
    torch.save(broken, tmp_path / 'broken.pth')
    resume['load_from'] = str(tmp_path / 'broken.pth')
    runner = make_runner(ema, check, model=Masked(), kind=Runner, epochs=3, **resume)
    ended(runner, f"broken.pth': '{MEAN}' holds NaN or Inf; the training diverged")


def run_once(outputs, wrapper=None, **state):
    """Call the hook once, in a loop by iterations, with a model whose weight may be given."""
    model = nn.Linear(1, 1)
    model.load_state_dict(state, strict=False)
    wrapper = wrapper or OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.25))
    runner = SimpleNamespace(
        optim_wrapper=wrapper, message_hub=MessageHub('once'), train_loop=None, iter=6, hooks=[],
        model=model, _resume=False,
    )  # fmt: skip
    LossCheckHook().after_train_iter(runner, 0, outputs=outputs)


NAN, INF = torch.tensor(float('nan')), float('-inf')


@pytest.mark.parametrize(
    ('outputs', 'said'),
    [
        (
            dict(loss=NAN, loss_cls=NAN, loss_bbox=torch.ones(()), acc=NAN),
            'loss_cls is NaN in iter',
        ),
        (
            dict(loss=NAN, loss_a=INF, loss_b=INF),
            'loss_a is Inf and loss_b is Inf in iteration 7, at',
        ),
        (dict(loss=INF, loss_a=1e38), 'loss is Inf in iteration 7, at the learning rate 0.25;'),
        (dict(d_loss=1.0, g_loss=NAN), 'g_loss is NaN in iteration 7'),
    ],
)
def test_which_loss(outputs, said):
    with pytest.raises(InputError, match=f'^{said}.*no checkpoint was written yet$'):
        run_once(outputs)


@pytest.mark.parametrize('outputs', [None, {}, dict(acc=NAN), dict(loss=torch.ones(()), norm=INF)])
def test_values_that_are_no_losses(outputs):
    run_once(outputs)
    assert not non_finite_losses(outputs)


def test_a_loss_scaler_skips_the_step():
    """Weights that are NaN already do not recover; a scaler that is off skips nothing."""
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scaled, plain, off = (OptimWrapper(sgd) for _ in range(3))
    scaled.loss_scaler = torch.amp.GradScaler('cpu')
    off.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
    both = OptimWrapperDict(a=plain, b=scaled)
    assert loss_scalers(both) == [scaled.loss_scaler]
    for wrapper in (scaled, both):
        run_once(dict(loss=NAN), wrapper)
    with pytest.raises(InputError, match=r"^NaN or Inf in 'weight' after iteration 7, at"):
        run_once(dict(loss=NAN), scaled, weight=torch.tensor([[INF]]))
    with pytest.raises(InputError, match='^loss is NaN'):
        run_once(dict(loss=NAN), off)


def test_a_model_without_floats():
    check_weights(SimpleNamespace(model=nn.Identity(), hooks=[]))
