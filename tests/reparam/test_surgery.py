"""reparameterize_model on whole modules."""

import copy

import pytest
import torch
from torch import nn

from helpers import SMALL, randomize_, same
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.reparam import Branch, Reparameterizable
from mobileone_mm.reparam.compare import max_difference

TINY = dict(
    SMALL, num_blocks=[1, 2, 2, 1], num_conv_branches=[2, 1, 3, 1], num_se_blocks=[0, 0, 1, 1]
)


def tiny(**kwargs):
    model = MobileOne(TINY, out_indices=('stem', 0, 1, 2, 3), **kwargs)
    return randomize_(model, 3).double().eval()


def image(size=(40, 56), channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('output_stride', [8, 16, 32])
@pytest.mark.parametrize('contract', [False, True])
def test_function_is_kept(output_stride, contract):
    model = tiny(output_stride=output_stride, contract_dilation=contract)
    before = copy.deepcopy(model.state_dict())
    fused = reparameterize_model(model)
    assert fused is not model
    assert not model.deploy
    assert fused.deploy
    assert same(model, before)
    with torch.no_grad():
        assert max_difference(model(image()), fused(image()))[1] < 1e-12
    assert not any('branch_conv' in key or 'norm' in key for key in fused.state_dict())


def test_in_place_and_idempotent():
    model = tiny()
    assert reparameterize_model(model, inplace=True) is model
    state = copy.deepcopy(model.state_dict())
    again = reparameterize_model(model)
    assert same(again, state)
    again.train()
    assert reparameterize_model(again, inplace=True) is again  # nothing is left to refuse


def test_shared_blocks_stay_shared_at_any_depth():
    backbone = tiny()
    model = nn.ModuleDict({'a': nn.Sequential(nn.Identity(), backbone), 'b': backbone}).eval()
    fused = reparameterize_model(model)
    assert fused['a'][1] is fused['b']
    with torch.no_grad():
        assert max_difference(model['b'](image()), fused['a'](image()))[1] < 1e-12


def test_training_mode_is_refused_and_nothing_changes():
    model = tiny().train()
    with pytest.raises(ValueError, match=r'stage0 is in training mode.*call model.eval\(\) first'):
        reparameterize_model(model, inplace=True)
    for part in (model.stage3[2].branch_conv_list[0].norm, model.stage3[2]):
        model.eval()
        part.training = True
        with pytest.raises(ValueError, match=r'stage3\.2 is in training mode'):
            reparameterize_model(model, inplace=True)
    assert not any(m.deploy for m in model.modules() if isinstance(m, MobileOneBlock))
    with pytest.raises(ValueError, match='^model: the block is in training mode'):
        reparameterize_model(model.stage0.train())
    with pytest.raises(TypeError, match='model: got dict'):
        reparameterize_model({})


def test_broken_weights_leave_the_model_whole():
    model = tiny()
    model.stage4[1].branch_conv_list[0].norm.running_var[0] = float('nan')
    with pytest.raises(ValueError, match=r'stage4\.1 cannot be fused: norm: .*NaN'):
        reparameterize_model(model, inplace=True)
    assert not any(m.deploy for m in model.modules() if isinstance(m, MobileOneBlock))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_result_has_the_dtype_and_layout_of_the_parameters(dtype):
    model = tiny().to(dtype).to(memory_format=torch.channels_last)
    fused = reparameterize_model(model)
    assert {p.dtype for p in fused.parameters()} == {dtype}
    kernel = fused.stage0.branch_reparam.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        relative = max_difference(model(image().to(dtype)), fused(image().to(dtype)))[1]
    assert relative < {torch.float16: 0.05, torch.bfloat16: 0.3, torch.float32: 1e-4}[dtype]


@pytest.mark.parametrize('name', ['weight', 'bias'])
def test_what_is_too_large_for_half_precision_is_an_error(name):
    model = tiny().half()
    with torch.no_grad():
        for norm in (branch.norm for branch in model.stage1[0].reparam_branches()):
            norm.running_mean.zero_()
            getattr(norm, name).fill_(6e4)
    with pytest.raises(InputError, match=r'overflows torch.float16; use float32'):
        reparameterize_model(model)


def test_sync_bn():
    reference, model = tiny(), tiny(norm_cfg=dict(type='SyncBN'))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    model.load_state_dict(reference.state_dict())
    with torch.no_grad():
        assert max_difference(reference(image()), reparameterize_model(model)(image()))[1] < 1e-12


def test_another_block_fuses_by_the_protocol():
    class Foreign(nn.Module):
        """conv-BN plus identity BN, none of it ours."""

        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.skip, self.deploy, self.kernel_shape = nn.BatchNorm2d(4), False, (4, 4, 3, 3)

        def forward(self, x):
            return self.conv(x) if self.deploy else self.bn(self.conv(x)) + self.skip(x)

        def reparam_branches(self):
            return [Branch(self.bn, self.conv.weight), Branch(self.skip, None)]

        def switch_to_deploy(self, weight, bias):
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.conv.weight, self.conv.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.deploy = True

    model = randomize_(nn.Sequential(Foreign()), 5).double().eval()
    assert isinstance(model[0], Reparameterizable)
    x = image(channels=4)
    with torch.no_grad():
        assert max_difference(model(x), reparameterize_model(model)(x))[1] < 1e-13
