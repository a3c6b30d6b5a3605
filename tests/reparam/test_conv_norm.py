"""Folding of BN into the layer before it: which pairs there are, and that the function stays."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from helpers import randomize_
from mobileone_mm import MobileOne
from mobileone_mm.reparam.compare import max_difference
from mobileone_mm.reparam.conv_norm import find_conv_norms, fold_norm, folded_tensors


class Bundle(nn.Module):
    """mmcv's ConvModule, as far as its attributes say what follows what."""

    def __init__(self, conv, bn, order=('conv', 'norm', 'act'), act=True):
        super().__init__()
        self.conv, self.bn, self.order, self.with_activation = conv, bn, order, act


LAYERS = [
    (nn.Conv2d(6, 8, 3, groups=2, dilation=2, stride=2, bias=False), nn.BatchNorm2d(8)),
    (nn.Conv2d(6, 6, (1, 5), groups=6), nn.BatchNorm2d(6, eps=0.1)),
    (nn.Conv1d(4, 3, 2), nn.BatchNorm1d(3, affine=False)),
    (nn.Conv3d(2, 3, 2, bias=False), nn.BatchNorm3d(3)),
    (nn.Linear(5, 7), nn.BatchNorm1d(7)),
    (nn.Linear(5, 7, bias=False), nn.SyncBatchNorm(7, affine=False)),
    (nn.ConvTranspose2d(6, 8, 3, groups=2, stride=2), nn.BatchNorm2d(8)),
    (nn.ConvTranspose2d(4, 4, 2, groups=4, bias=False), nn.SyncBatchNorm(4)),
    (nn.ConvTranspose1d(4, 6, 2, bias=False), nn.BatchNorm1d(6)),
]


@pytest.mark.parametrize(('layer', 'norm'), LAYERS, ids=lambda module: type(module).__name__)
@pytest.mark.parametrize('frozen', [False, True])
def test_the_function_stays(layer, norm, frozen):
    model = randomize_(nn.Sequential(layer, norm)).double().eval().requires_grad_(not frozen)
    dims = layer.weight.ndim - 2
    channels = layer.in_features if dims == 0 else layer.in_channels
    inputs = torch.randn(2, channels, *[11] * dims, dtype=torch.float64)
    found = find_conv_norms(model)
    assert [pair[:] for pair in found.pairs] == [('', '0', '1')]
    assert found.left == {}
    tensors = dict(folded_tensors(model, found.pairs))
    with torch.no_grad():
        expected = model(inputs)
        layer.bias = nn.Parameter(torch.zeros(len(tensors['0.bias'])).double())
        layer.load_state_dict({key[2:]: value for key, value in tensors.items()})
        _absolute, relative = max_difference(expected, layer(inputs))
    assert relative < 1e-12


def bundle(conv=None, **kwargs):
    return Bundle(conv or nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), **kwargs)


@pytest.mark.parametrize(
    ('module', 'reason'),
    [
        (bundle(order=('conv', 'act', 'norm')), 'follows an activation'),
        (bundle(order=('norm', 'conv', 'act')), 'precedes its convolution'),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)), 'does not follow a convolution'),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), 'does not follow'),
        (Bundle(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), 'no running'),
        (bundle(nn.PReLU(4)), 'follows a PReLU'),
        (bundle(nn.utils.spectral_norm(nn.Conv2d(4, 4, 1))), 'whose weight is computed'),
        (bundle(weight_norm(nn.Conv2d(4, 4, 1))), 'whose weight is computed'),
    ],
)
def test_what_is_no_pair(module, reason):
    found = find_conv_norms(nn.ModuleDict({'part': module}).eval())
    assert found.pairs == []
    (said,) = found.left.values()
    assert reason in said


def test_without_activation_the_order_of_it_does_not_matter():
    found = find_conv_norms(bundle(order=('conv', 'act', 'norm'), act=False))
    assert len(found.pairs) == 1


def test_shared_convolutions_and_shared_norms():
    conv, norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
    levels = nn.ModuleList(Bundle(conv, nn.BatchNorm2d(4)) for _ in range(3))
    found = find_conv_norms(levels)
    assert found.pairs == []
    assert set(found.left.values()) == {'shares its convolution with 2 other BN'}
    # One norm behind several convolutions folds into each of them.
    found = find_conv_norms(nn.ModuleList(Bundle(nn.Conv2d(4, 4, 1), norm) for _ in range(3)))
    assert len(found.pairs) == 3
    # The same pair in two places is one pair under two names.
    found = find_conv_norms(nn.ModuleList([Bundle(conv, norm), Bundle(conv, norm)]))
    assert len(found.pairs) == 2
    found = find_conv_norms(nn.ModuleList([Bundle(conv, norm), nn.Sequential(conv, nn.ReLU())]))
    assert found.pairs == []
    assert 'also used without it' in found.left['0.bn']


def parent(**children):
    return nn.ModuleDict(children)


def test_parents_without_an_order():
    """Exactly one layer with the channels of the BN, and one BN, are a pair."""
    conv, wide, norm = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1), nn.BatchNorm2d(4)
    two = parent(conv=conv, second=nn.Conv2d(4, 4, 1), norm=norm)
    assert 'of its own' in find_conv_norms(two).left['norm']
    assert find_conv_norms(parent(wide=wide, conv=conv, norm=norm)).pairs == [('', 'conv', 'norm')]
    nested = parent(inner=parent(fc=nn.Linear(8, 4), norm=norm))
    assert find_conv_norms(nested).pairs == [('inner', 'inner.fc', 'inner.norm')]
    found = find_conv_norms(parent(conv=conv, wide=wide, norm=norm, other=nn.BatchNorm2d(8)))
    assert found.left == dict.fromkeys(
        ['norm', 'other'], 'does not follow a convolution of its own'
    )
    assert find_conv_norms(norm).left == {'': 'is the whole model'}
    assert find_conv_norms(Bundle(wide, norm)).left == {'bn': 'precedes its convolution'}
    assert find_conv_norms(Bundle(conv, norm, order=['conv', 'norm'])).pairs == [('', 'conv', 'bn')]
    hooked = nn.Conv2d(4, 4, 1)
    hooked.register_forward_pre_hook(lambda *_: None)
    assert 'is computed' in find_conv_norms(Bundle(hooked, norm)).left['bn']


def test_dtype_of_the_folded_tensors():
    model = randomize_(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    pairs = find_conv_norms(model).pairs
    own, wide = (dict(folded_tensors(model, pairs, dtype)) for dtype in (None, torch.float64))
    for name in ('0.weight', '0.bias'):
        assert own[name].dtype == torch.float32
        assert wide[name].dtype == torch.float64
        assert torch.equal(wide[name].float(), own[name])
        assert not torch.equal(wide[name], own[name].double())


def test_blocks_of_the_backbone_are_not_looked_into():
    net = MobileOne(dict(num_blocks=[1, 1, 1, 1], width_factor=[0.125] * 4))
    assert find_conv_norms(nn.ModuleDict({'backbone': net})) == ([], {})


def test_broken_numbers():
    conv, norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    norm.running_var[0] = -1
    assert 'expected running_var + eps above 0' in find_conv_norms(Bundle(conv, norm)).left['bn']
    norm.running_var[0] = 1
    conv.weight.data[0] = float('nan')
    with pytest.raises(ValueError, match='NaN or Inf'):
        fold_norm(conv, norm)
    conv.weight.data.fill_(1)
    conv.bias.data.fill_(float('inf'))
    with pytest.raises(ValueError, match='NaN or Inf'):
        fold_norm(conv, norm)
    conv.bias.data.fill_(0)
    norm.weight.data.fill_(1e6)
    model = Bundle(conv, norm)
    with pytest.raises(ValueError, match='overflows torch.float16'):
        list(folded_tensors(model, find_conv_norms(model).pairs, torch.float16))
