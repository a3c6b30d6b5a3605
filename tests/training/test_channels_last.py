"""Runs with channels_last: the same numbers in another layout, whatever it is combined with."""

import copy
import shutil
from contextlib import nullcontext
from functools import partial
from statistics import median

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.utils._pytree import tree_leaves

from mobileone_mm.benchmark.timer import interleaved
from mobileone_mm.config.check import check_values
from mobileone_mm.errors import InputError
from mobileone_mm.models import mobileone
from mobileone_mm.models.block import SubsampledConv2d
from mobileone_mm.training.channels_last import restore_format, use_channels_last
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import Classifier, assert_same, losses_of, metrics_of

LAST = 'channels_last = True\n'


def is_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


@pytest.fixture
def seen(monkeypatch):
    """Record for each backbone call: mode, deploy form or not, layout of input, weight and output."""
    found = []
    forward = mobileone.MobileOne.forward

    def spy(self, x):
        outputs = forward(self, x)
        if not torch.compiler.is_compiling():
            kernels = (p for p in self.parameters() if p.dim() == 4 and p.shape[2] == 3)
            kernel = next(kernels, x)  # deploy's proof takes the parameters away
            layouts = [is_last(tensor) for tensor in (x, kernel, outputs[0])]
            found.append((self.training, self.deploy, *layouts))
        return outputs

    monkeypatch.setattr(mobileone.MobileOne, 'forward', spy)
    return found


@pytest.fixture
def double(monkeypatch):
    """Runs in float64: torch's BN on a CPU is less exact in this layout in float32."""
    forward = mobileone.MobileOne.forward
    monkeypatch.setattr(mobileone.MobileOne, 'forward', lambda self, x: forward(self, x.double()))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def content_of(work_dir, epoch=1):
    return read_checkpoint(work_dir / f'epoch_{epoch}.pth')


def assert_close(first, second, tolerance=1e-8):
    """Float64 in another order of summation, a few steps on: by the scale of each tensor."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert not value.is_floating_point() or value.dtype == torch.float64
        difference = (value.double() - second[key].double()).abs().max()
        scale = second[key].double().abs().max().clamp(min=0.01)
        assert difference <= tolerance * scale, (key, float(difference / scale))


def all_contiguous(content):
    return all(t.is_contiguous() for t in tree_leaves(content) if isinstance(t, torch.Tensor))


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_same_numbers(task, train, tool, tmp_path, double, seen):
    """Losses and weights of an epoch as without; then a test of the file in either layout."""
    contents, metrics = {}, []
    for name, lines in (('usual', ''), ('last', LAST)):
        seen.clear()
        contents[name] = content_of(train(task, lines, name=name, val=task == 'cls'))
        assert {mode for mode, *_ in seen} == ({True, False} if task == 'cls' else {True})
        assert {layout for _, _, *layouts in seen for layout in layouts} == {name == 'last'}
    usual, last = contents['usual'], contents['last']
    assert all_contiguous(last)
    assert losses_of(last) == pytest.approx(losses_of(usual), rel=1e-8, abs=1e-8)
    assert_close(last['state_dict'], usual['state_dict'])
    for option in ('False', 'True') if task == 'cls' else ():
        seen.clear()
        files = (tmp_path / 'cls.py', tmp_path / 'last' / 'epoch_1.pth', tmp_path)
        found = metrics_of(tool, *files, '--cfg-options', f'channels_last={option}')
        metrics.append({key: value for key, value in found.items() if 'time' not in key})
        assert {layout for *_, layout in seen} == {option == 'True'}
    if metrics:
        assert metrics[0] == pytest.approx(metrics[1])


def test_with_everything(train, tmp_path, double, seen, capfd):
    """Checkpointed gradients, EMA, validation of the fused average, a pair; and resumed, exactly."""
    lines = """
model['backbone'].update(with_cp=True)
train_cfg = dict(max_epochs=2)
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True),
                dict(type='mobileone_mm.DeployEvalHook', verify='always'),
                dict(type='mobileone_mm.BestDeployHook')]
"""
    whole = train('cls', lines + LAST, name='whole', val=True)
    log = ''.join(capfd.readouterr())
    assert log.count('Deploy form proved: units differ by at most') == 2
    assert 'No deploy pair' not in log, log[log.index('No deploy pair') :][:3000]
    fused = [layouts for training, deploy, *layouts in seen if deploy and not training]
    assert [True] * 3 in fused  # the pair's own proof runs another copy, in the usual layout
    content = content_of(whole, 2)
    assert all_contiguous(content)
    pair = next(whole.glob('best_*_deploy.py'))
    assert 'channels_last' not in pair.read_text()

    for name, extra, check in (('usual', '', assert_close), ('same', LAST, assert_same)):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        (folder / 'epoch_2.pth').unlink()
        train('cls', lines + extra, '--resume', folder / 'epoch_1.pth', name=name, val=True)
        found = content_of(folder, 2)
        for key in ('state_dict', 'ema_state_dict'):
            check(found[key], content[key])


def test_compiled(train, double):
    """No break; two graphs: the conversion before the backbone, and the backbone."""
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    dynamo.reset()
    counters.clear()
    usual = content_of(train('cls', name='usual'))
    last = content_of(train('cls', f"{LAST}compile = dict(backend='eager')\n"))
    assert counters['stats']['unique_graphs'] == 2
    assert not counters['graph_break']
    assert_close(last['state_dict'], usual['state_dict'])


def test_the_start_is_the_same(make_runner):
    """torch draws random weights in the order of the memory; the seed must count alone."""
    states = []
    for settings in ({}, dict(cfg=dict(channels_last=True))):
        torch.manual_seed(5)  # also for the head, which has no start of its own
        runner = make_runner(kind=Runner, model=Classifier(), name=f'run{len(states)}', **settings)
        runner._init_model_weights()
        states.append(runner.model.state_dict())
    assert_same(*states)
    assert is_last(states[1]['backbone.stage0.branch_conv_list.0.conv.weight'])


def test_layouts_of_copies():
    model = Classifier()
    before = copy.deepcopy(model.state_dict())
    restore_format(model)
    assert not any(is_last(value) for value in model.state_dict().values())
    use_channels_last(model, 'cpu')
    use_channels_last(model, 'cpu')
    assert len(model.backbone._forward_pre_hooks) == 1
    other = copy.deepcopy(model).eval()
    other.backbone.switch_to_deploy()
    restore_format(other)
    assert is_last(other.backbone.stage0.branch_reparam.weight)
    restore_format(other.to(memory_format=torch.contiguous_format))
    assert is_last(other.backbone.stage0.branch_reparam.weight)
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize('value', [1, {}, 'yes'])
def test_the_setting(value):
    with pytest.raises(InputError, match=r'^channels_last: got .*; expected True or False$'):
        check_values(Config(dict(channels_last=value)))


def wrapped(backbone, name='backbone'):
    return nn.ModuleDict(dict(inner=nn.ModuleDict({name: backbone})))


def test_gradients_and_inputs_are_converted():
    model = wrapped(nn.Conv2d(8, 8, 3))
    conv = model['inner']['backbone']
    conv(torch.rand(1, 8, 4, 4)).sum().backward()
    expected, gradient = conv.weight.detach().clone(), conv.weight.grad.clone()
    use_channels_last(model, 'cpu')
    assert is_last(conv.weight)
    assert is_last(conv.weight.grad)
    assert torch.equal(conv.weight, expected)
    assert torch.equal(conv.weight.grad, gradient)
    hook = next(iter(conv._forward_pre_hooks.values()))
    image, row = torch.rand(2, 3, 4, 5), torch.rand(4, 5)
    converted = hook(conv, (image, row, 'text'))
    assert is_last(converted[0])
    assert torch.equal(converted[0], image)
    assert converted[1] is row
    assert converted[2] == 'text'


@pytest.mark.parametrize(
    ('convolution', 'refused'),
    [
        (nn.Conv2d(3, 8, 1, stride=2), True),
        (nn.Conv2d(4, 8, 1, stride=(1, 2)), True),
        (nn.Conv2d(5, 8, 1, stride=2), False),
        (nn.Conv2d(3, 8, 1), False),
        (nn.Conv2d(3, 8, 3, stride=2), False),
        (nn.Conv2d(3, 8, 1, stride=2).requires_grad_(False), False),
        (SubsampledConv2d(3, 8, 1, stride=2), False),
    ],
)
def test_strided_convolutions(convolution, refused):
    model = wrapped(nn.Sequential(nn.Conv2d(3, 3, 3), convolution))
    line = f"'inner.backbone.1' is a strided 1x1 convolution of {convolution.in_channels} channels"
    with pytest.raises(InputError, match=line) if refused else nullcontext():
        use_channels_last(model, 'cpu')
    use_channels_last(model, 'cuda')


def test_nothing_to_convert():
    layers = dict(my_backbone=nn.Conv2d(3, 3, 3), backbone=nn.Conv1d(3, 3, 3))
    others = (wrapped(layer, name) for name, layer in layers.items())
    for other in (*others, nn.ModuleDict(dict(backbone=nn.Linear(3, 3)))):
        with pytest.raises(InputError, match='ModuleDict has no backbone with 2-D convolutions'):
            use_channels_last(other, 'cpu')


@pytest.mark.slow
@pytest.mark.parametrize('deploy', [False, True], ids=['step', 'deploy form'])
def test_time(deploy):
    """Time 8 images of 160 px in turns and print the numbers of docs/imagenet.md; assert none."""
    usual = nn.ModuleDict(dict(backbone=mobileone.MobileOne('s0', deploy=deploy))).train(not deploy)
    last = copy.deepcopy(usual)
    use_channels_last(last, 'cpu')
    images = torch.rand(8, 3, 160, 160)

    def step(model):
        with torch.set_grad_enabled(not deploy):
            loss = model['backbone'](images)[-1].mean()
        if not deploy:
            loss.backward()

    times = interleaved(dict(usual=partial(step, usual), last=partial(step, last)), 7)
    medians = [median(seconds) for seconds in times.values()]
    print(f'\ns0, deploy={deploy}: {medians[1] / medians[0]:.2f} of the time')
    assert all(value > 0 for value in medians)
