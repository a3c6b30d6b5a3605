"""Runs with channels_last: the same numbers in another layout, whatever it is combined with."""

import copy
import json
import shutil
from contextlib import nullcontext
from functools import partial
from statistics import median

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mobileone_mm.benchmark.timer import interleaved
from mobileone_mm.config.check import check_values
from mobileone_mm.errors import InputError
from mobileone_mm.models import mobileone
from mobileone_mm.models.block import SubsampledConv2d
from mobileone_mm.training.channels_last import restore_format, use_channels_last
from mobileone_mm.training.runner import Runner
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import Classifier

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


def losses_of(content):
    return torch.tensor(content['message_hub']['log_scalars']['train/loss'].data[0])


def assert_close(first, second, tolerance=1e-8):
    """Float64 in another order of summation, a few steps on: by the scale of each tensor."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert not value.is_floating_point() or value.dtype == torch.float64
        difference = (value.double() - second[key].double()).abs().max()
        scale = second[key].double().abs().max().clamp(min=0.01)
        assert difference <= tolerance * scale, (key, float(difference / scale))


def tensors_in(content):
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors_in(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from tensors_in(value)


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_same_numbers(task, tiny_config, tool, tmp_path, double, seen):
    """Losses and weights of an epoch as without; then a test of the file in either layout."""
    contents, metrics = {}, []
    validate = () if task == 'cls' else ('--no-validate',)
    for name, lines in (('usual', ''), ('last', LAST)):
        seen.clear()
        work_dir = tmp_path / name
        config = tiny_config(task, lines, f'{task}_{name}')
        assert tool('train', config, '--work-dir', work_dir, *validate) == 0
        contents[name] = content_of(work_dir)
        assert {mode for mode, *_ in seen} == ({True, False} if task == 'cls' else {True})
        assert {layout for _, _, *layouts in seen for layout in layouts} == {name == 'last'}
    assert all(t.is_contiguous() for t in tensors_in(contents['last']))
    usual, last = contents['usual'], contents['last']
    torch.testing.assert_close(losses_of(last), losses_of(usual), rtol=1e-8, atol=1e-8)
    assert_close(last['state_dict'], usual['state_dict'])
    for option in ('False', 'True') if task == 'cls' else ():
        seen.clear()
        folder = tmp_path / option
        arguments = ('--work-dir', folder, '--out', tmp_path / 'metrics.json', '--cfg-options')
        checkpoint = tmp_path / 'last' / 'epoch_1.pth'
        assert tool('test', config, checkpoint, *arguments, f'channels_last={option}') == 0
        metrics.append(json.loads((tmp_path / 'metrics.json').read_text()))
        assert {layout for *_, layout in seen} == {option == 'True'}
    if metrics:
        keys = [key for key in metrics[0] if 'time' not in key]
        assert [metrics[0][k] for k in keys] == pytest.approx([metrics[1][k] for k in keys])


def test_with_everything(tiny_config, tool, tmp_path, double, seen, capfd):
    """Checkpointed gradients, EMA, validation of the fused average, a pair; and resumed, exactly."""
    lines = """
model['backbone'].update(with_cp=True)
train_cfg = dict(max_epochs=2)
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True),
                dict(type='mobileone_mm.DeployEvalHook', verify='always'),
                dict(type='mobileone_mm.BestDeployHook')]
"""
    config = tiny_config('cls', lines + LAST)
    whole = tmp_path / 'whole'
    assert tool('train', config, '--work-dir', whole) == 0
    log = ''.join(capfd.readouterr())
    assert log.count('Deploy form proved: units differ by at most') == 2
    assert 'No deploy pair' not in log, log[log.index('No deploy pair') :][:3000]
    fused = [layouts for training, deploy, *layouts in seen if deploy and not training]
    assert [True] * 3 in fused  # the pair's own proof runs another copy, in the usual layout
    content = content_of(whole, 2)
    assert all(t.is_contiguous() for t in tensors_in(content))
    pair = next(whole.glob('best_*_deploy.py'))
    assert 'channels_last' not in pair.read_text()

    for name, extra in (('usual', ''), ('same', LAST)):
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        (folder / 'epoch_2.pth').unlink()
        config = tiny_config('cls', lines + extra, name)
        arguments = ('--work-dir', folder, '--resume', folder / 'epoch_1.pth')
        assert tool('train', config, *arguments) == 0
        found = content_of(folder, 2)
        for key in ('state_dict', 'ema_state_dict'):
            if name == 'same':
                assert all(torch.equal(v, content[key][k]) for k, v in found[key].items())
            else:
                assert_close(found[key], content[key])


def test_compiled(tiny_config, tool, tmp_path, double):
    """No break; two graphs: the conversion before the backbone, and the backbone."""
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    dynamo.reset()
    counters.clear()
    for name, lines in (('usual', ''), ('last', f"{LAST}compile = dict(backend='eager')\n")):
        config = tiny_config('cls', lines, name)
        assert tool('train', config, '--work-dir', tmp_path / name, '--no-validate') == 0
    assert counters['stats']['unique_graphs'] == 2
    assert not counters['graph_break']
    usual, last = (content_of(tmp_path / name)['state_dict'] for name in ('usual', 'last'))
    assert_close(last, usual)


def test_the_start_is_the_same(make_runner):
    """torch draws random weights in the order of the memory; the seed must count alone."""
    states = []
    for settings in ({}, dict(cfg=dict(channels_last=True))):
        torch.manual_seed(5)  # also for the head, which has no start of its own
        runner = make_runner(kind=Runner, model=Classifier(), name=f'run{len(states)}', **settings)
        runner._init_model_weights()
        states.append(runner.model.state_dict())
    assert all(torch.equal(value, states[0][key]) for key, value in states[1].items())
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
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_setting(tiny_config, tool, tmp_path, capsys):
    for value in (1, {}):
        with pytest.raises(InputError, match='channels_last: got'):
            check_values(Config(dict(channels_last=value)))
    options = ('--work-dir', tmp_path / 'run', '--cfg-options', 'channels_last=yes')
    assert tool('train', tiny_config('cls'), *options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert 'channels_last: got' in lines[0]
    assert lines[0].endswith('expected True or False')
    assert not (tmp_path / 'run').exists()


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
    with pytest.raises(InputError, match='strided 1x1') if refused else nullcontext():
        use_channels_last(model, 'cpu')


def test_nothing_to_convert():
    for other in (wrapped(nn.Conv2d(3, 3, 3), 'my_backbone'), wrapped(nn.Conv1d(3, 3, 3))):
        with pytest.raises(InputError, match='has no backbone with 2-D convolutions'):
            use_channels_last(other, 'cpu')
    model = nn.Module()
    model.backbone = nn.Linear(3, 3)
    with pytest.raises(InputError, match='Module has no backbone with 2-D convolutions'):
        use_channels_last(model, 'cpu')


def test_what_torch_computes_wrongly():
    """mmpretrain's own class has the strided 1x1 convolution that this one goes around."""
    from mmpretrain.models import MobileOne as HostMobileOne

    model = nn.Module()
    model.backbone = HostMobileOne('s0')
    with pytest.raises(InputError, match=r"'backbone\.stage0.*' is a strided 1x1 convolution of 3"):
        use_channels_last(model, 'cpu')
    use_channels_last(model, 'cuda')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arch', 'deploy'), [('s0', False), ('s0', True)], ids=['step', 'deploy form']
)
def test_time(arch, deploy):
    """Time 8 images of 160 px in turns and print the numbers of docs/imagenet.md; assert none."""
    models = [
        nn.ModuleDict(dict(backbone=mobileone.MobileOne(arch, deploy=deploy))).train(not deploy)
    ]
    models.append(copy.deepcopy(models[0]))
    use_channels_last(models[1], 'cpu')
    images = torch.rand(8, 3, 160, 160)

    def step(model):
        with torch.set_grad_enabled(not deploy):
            loss = model['backbone'](images)[-1].mean()
        if not deploy:
            loss.backward()

    times = interleaved({str(i): partial(step, model) for i, model in enumerate(models)}, 7)
    medians = [median(seconds) for seconds in times.values()]
    print(f'\n{arch}, deploy={deploy}: {medians[1] / medians[0]:.2f} of the time')
    assert all(value > 0 for value in medians)
