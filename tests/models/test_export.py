"""Both forms go through torch's tracers, and run in other dtypes and layouts."""

import shutil

import pytest
import torch
from torch import fx

from helpers import SMALL, randomize_
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.reparam.compare import max_difference

ARCH = dict(
    SMALL, num_blocks=[1, 1, 2, 1], num_conv_branches=[2, 1, 1, 2], num_se_blocks=[0, 0, 1, 1]
)


@pytest.fixture(params=['train', 'deploy'])
def model(request):
    net = randomize_(MobileOne(ARCH, out_indices=('stem', 1, 3), output_stride=16), 4).eval()
    return net if request.param == 'train' else reparameterize_model(net)


def image(*size):
    return torch.randn(size or (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def same(model, other, *size):
    with torch.no_grad():
        x = image(*size)
        assert max_difference(model(x), other(x))[1] < 1e-5


def exported(model):
    n, h, w = (
        torch.export.Dim(name, min=low, max=8) for name, low in (('n', 1), ('h', 2), ('w', 2))
    )
    shapes = {'x': {0: n, 2: 16 * h, 3: 16 * w}}
    return torch.export.export(model, (image(),), dynamic_shapes=shapes).module()


def traced(model):
    return torch.jit.trace(model, image())


@pytest.mark.parametrize('trace', [exported, traced, fx.symbolic_trace])
def test_other_sizes_than_the_traced_one(model, trace):
    other = trace(model)
    same(model, other)
    same(model, other, 1, 3, 96, 48)


@pytest.mark.parametrize('out_indices', [('stem', 1, 3), (2, 0)])
def test_jit_script_of_the_deploy_form(out_indices):
    """TorchScript has no tuples of any length: its outputs are a list."""
    net = MobileOne(ARCH, out_indices=out_indices, with_cp=True)
    net = reparameterize_model(randomize_(net, 4).eval())
    scripted = torch.jit.freeze(torch.jit.script(net))
    same(net, scripted, 1, 3, 96, 48)
    assert isinstance(scripted(image()), list)
    assert isinstance(net(image()), tuple)


needs_compiler = pytest.mark.skipif(shutil.which('g++') is None, reason='needs a C++ compiler')


@needs_compiler
def test_compile(model):
    same(model, torch.compile(model))


@needs_compiler
@pytest.mark.slow
def test_compiled_training_step():
    plain = randomize_(MobileOne(ARCH), 4).double()
    other = MobileOne(ARCH).double()
    other.load_state_dict(plain.state_dict())
    for net in (plain, torch.compile(other)):
        net(image().double())[0].square().mean().backward()
    gradients = dict(other.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision(model, dtype, tolerance):
    with torch.no_grad():
        expected = model(image())
        actual = model.to(dtype)(image().to(dtype))
    assert all(o.dtype == dtype for o in actual)
    assert max_difference(expected, actual)[1] < tolerance


def test_channels_last(model):
    with torch.no_grad():
        expected = model(image())
        model = model.to(memory_format=torch.channels_last)
        actual = model(image().contiguous(memory_format=torch.channels_last))
    assert max_difference(expected, actual)[1] < 1e-5
    assert actual[0].is_contiguous(memory_format=torch.channels_last)


def _gradients(model, x):
    model.zero_grad()
    for output in model(x):
        output.float().square().mean().backward(retain_graph=True)
    return {name: p.grad.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize('in_channels', [3, 4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_channels_last_gradients(in_channels, dtype):
    """Whole network, against float64 and contiguous.

    torch 2.13's CPU build gets the weight gradient of a strided 1x1 convolution with 3 or 4 input
    channels wrong in channels_last; the stem's scale branch is one.
    """
    net = randomize_(MobileOne(ARCH, in_channels=in_channels, out_indices=('stem', 1, 3)), 6)
    net.double()
    x = torch.randn(2, in_channels, 64, 64, generator=torch.Generator().manual_seed(1))
    truth = _gradients(net, x.double())
    net.to(dtype)
    contiguous = _gradients(net, x.to(dtype))
    net.to(memory_format=torch.channels_last)
    channels_last = _gradients(net, x.to(dtype).contiguous(memory_format=torch.channels_last))
    assert set(contiguous) == set(channels_last) == set(truth)
    # The scalar weights before a BN have almost no gradient (scale invariance): compared by the
    # size of the others. ReLU flips make a tiny net ill-conditioned, hence each form's own error.
    floor = 0.02 * max(float(g.norm()) for g in truth.values())
    for name, expected in truth.items():
        scale = max(float(expected.norm()), floor)
        found = contiguous[name], channels_last[name]
        errors = [float((gradient.double() - expected).norm()) / scale for gradient in found]
        allowed = 1e-3 if dtype == torch.float32 else 0.1
        assert errors[1] <= max(allowed, 2 * errors[0]), (name, errors)
