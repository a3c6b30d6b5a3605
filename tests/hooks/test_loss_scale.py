"""Skipped steps of the loss scaler: simulated on the CPU with torch's own scaler."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict

from mobileone_mm.errors import InputError
from mobileone_mm.hooks.loss_scale import LossScaleHook


class CpuAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's wrapper without its demand for a GPU: the same backward, step and scaler."""

    def __init__(self, optimizer: torch.optim.Optimizer, **scaler) -> None:
        OptimWrapper.__init__(self, optimizer, clip_grad=dict(max_norm=10.0))
        self._scale_update_param, self.cast_dtype = None, None
        self.loss_scaler = torch.amp.GradScaler('cpu', **scaler)


class Half(torch.autograd.Function):
    """Rounds the gradient to float16, where it overflows beyond 65504."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.half().float()


def run(iterations: int, slope: float, caplog, **scaler) -> tuple[list[float], list[str]]:
    """Train y = w * slope; return the logged means of grad_norm and the log lines."""
    hub = MessageHub.get_instance(f'scale-{slope}-{iterations}-{len(scaler)}')
    weight = torch.nn.Parameter(torch.ones(2))
    wrapper = CpuAmpOptimWrapper(torch.optim.SGD([weight], lr=1e-6), **scaler)
    wrapper.message_hub = hub
    runner = SimpleNamespace(
        optim_wrapper=wrapper, message_hub=hub, logger=logging.getLogger('scale'), iter=0
    )
    hook = LossScaleHook(patience=5)
    hook.before_train(runner)
    means = []
    with caplog.at_level(logging.INFO, 'scale'):
        for runner.iter in range(iterations):
            wrapper.update_params((Half.apply(weight) * slope).sum())
            hook.after_train_iter(runner, runner.iter)
            means.append(float(hub.get_scalar('train/grad_norm').mean(50)))
        hook.after_train(runner)
    return means, [record.getMessage() for record in caplog.records]


def test_first_steps_are_skipped_and_leave_the_average(caplog):
    """At slope 6 the scales 65536, 32768 and 16384 overflow, 8192 does not."""
    means, lines = run(30, 6.0, caplog)
    assert not any(map(torch.isfinite, torch.tensor(means[:3])))
    assert means[3:] == pytest.approx([6 * 2**0.5] * 27)
    assert len(lines) == 1
    assert 'skipped 3 steps before iteration 4' in lines[0]
    assert 'the scale is now 8192' in lines[0]


def test_without_the_hook_one_skipped_step_hides_the_window(caplog, monkeypatch):
    monkeypatch.setattr(LossScaleHook, 'after_train_iter', lambda *_, **__: None)
    means, _ = run(30, 6.0, caplog)
    assert not any(map(torch.isfinite, torch.tensor(means)))


def test_no_skipped_step_no_line(caplog):
    assert run(10, 0.5, caplog) == (pytest.approx([0.5 * 2**0.5] * 10), [])


def test_gradients_that_overflow_at_any_scale(caplog):
    _, lines = run(12, float('inf'), caplog)
    assert [line for line in lines if 'successive' in line] == lines[:2]
    assert 'has skipped 5 successive steps' in lines[0]
    assert lines[-1] == 'The loss scaler skipped the last 12 steps.'


@pytest.mark.parametrize(
    ('patience', 'constant', 'last', 'scale'), [(20, False, 40, '5.96e-08'), (5, True, 5, '8')]
)
def test_a_scaler_that_cannot_recover(patience, constant, last, scale, caplog):
    """No scale helps below 1e-6, and a constant scale does not change."""
    weight = torch.nn.Parameter(torch.ones(2))
    wrapper = CpuAmpOptimWrapper(
        torch.optim.SGD([weight], lr=0.5), **(dict(init_scale=8.0) if constant else {})
    )
    wrapper._scale_update_param = 8.0 if constant else None
    wrapper.message_hub = hub = MessageHub(f'lost-{constant}')
    runner = SimpleNamespace(
        optim_wrapper=wrapper, message_hub=hub, logger=logging.getLogger('lost'), iter=0,
        train_loop=None, _resume=False,
    )  # fmt: skip
    hook = LossScaleHook(patience)
    hook.before_train(runner)

    def train():
        for runner.iter in range(100):
            loss = weight.sum() * float('nan')
            wrapper.update_params(loss)
            hook.after_train_iter(runner, outputs=dict(loss=loss, loss_cls=loss))

    line = (
        f'^the loss scaler has skipped {last} successive steps, because loss_cls is NaN; the scale is '
        f'{scale} in iteration {last}, at the learning rate 0.5; '
    )
    with pytest.raises(InputError, match=line):
        train()
    assert torch.equal(weight, torch.ones(2))


def test_runs_without_a_scaler_and_between_steps():
    """Several optimizers, which have no scaler; an iteration that only accumulates gradients."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1)
    between = SimpleNamespace(loss_scaler=1, should_update=lambda: False, optimizer=optimizer)
    for wrapper in (OptimWrapperDict(a=OptimWrapper(optimizer)), between):
        hook, runner = LossScaleHook(), SimpleNamespace(optim_wrapper=wrapper)
        hook.before_train(runner)
        hook.after_train_iter(runner)
        hook.after_train(runner)  # logs nothing: this runner has no logger
        assert hook.patience == 20


def test_fused_optimizers_and_gradients_without_a_norm():
    """A fused optimizer runs also in a skipped step; without clip_grad there is no window."""
    hook, lines = LossScaleHook(), []
    scaler = SimpleNamespace(get_scale=lambda: 8.0)
    runner = SimpleNamespace(
        optim_wrapper=SimpleNamespace(loss_scaler=scaler, should_update=lambda: True),
        message_hub=MessageHub('without norms'),
        logger=SimpleNamespace(info=lines.append),
        iter=3,
    )
    for overflow in (1.0, 0.0):
        hook._after_step(SimpleNamespace(found_inf=torch.tensor(overflow)), (), {})
        hook.after_train_iter(runner)
    assert len(lines) == 1
    assert 'skipped 1 steps before iteration 4' in lines[0]
