"""Public weights under other names and in the other form."""

import errno
import os
import sys
from functools import cache
from unittest.mock import Mock

import pytest
import torch

from helpers import SMALL, randomize_, same
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm._version import __version__
from mobileone_mm.errors import InputError
from mobileone_mm.models import ARCHS
from mobileone_mm.models.sizes import Arch
from mobileone_mm.reparam.compare import max_difference
from mobileone_mm.weights.convert import convert_weights, weight_bytes
from mobileone_mm.weights.fit import load_weights
from mobileone_mm.weights.layout import check_whole
from mobileone_mm.weights.names import SCHEMES
from mobileone_mm.weights.reading import read_checkpoint
from mobileone_mm.weights.unwrap import read_weights


@cache
def classifier_state(arch='mu0', deploy=False):
    torch.manual_seed(0)
    model = randomize_(MobileOne(arch)).eval()
    if deploy:
        model = reparameterize_model(model)
    width = model.out_channels[-1]
    head = {'head.fc.weight': torch.randn(10, width), 'head.fc.bias': torch.randn(10)}
    return {f'backbone.{k}': v for k, v in model.state_dict().items()} | head


def cast(state, dtype):
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize(
    ('arch', 'deploy', 'to'),
    [
        *(('mu0', False, to) for to in SCHEMES if to != 'mmpretrain'),
        ('mu0', True, 'timm'),
        ('s4', True, 'corenet'),
    ],
)
def test_there_and_back_is_bit_exact(arch, deploy, to, tmp_path):
    state = classifier_state(arch, deploy)
    torch.save(state, tmp_path / 'own.pth')
    there = convert_weights(tmp_path / 'own.pth', tmp_path / 'other.pth.tar', to)
    form = 'deploy' if deploy else 'train'
    assert there == {
        'scheme': {'before': 'mmpretrain', 'after': to},
        'form': {'before': form, 'after': form},
        'arch': arch,
        'tensors': len(state),
    }
    other = read_checkpoint(tmp_path / 'other.pth.tar')
    assert all(isinstance(value, torch.Tensor) for value in other.values())
    assert not any(key.startswith('backbone.') for key in other)
    convert_weights(tmp_path / 'other.pth.tar', tmp_path / 'back.safetensors')
    assert same(dict(read_weights(tmp_path / 'back.safetensors').state), state)


@pytest.mark.parametrize(('arch', 'deploy'), [('s0', False), ('s4', True)])
def test_timm_gives_the_same_output(arch, deploy, tmp_path):
    timm = pytest.importorskip('timm')
    state = cast(classifier_state(arch, deploy), torch.float64)
    torch.save(state, tmp_path / 'own.pth')
    convert_weights(tmp_path / 'own.pth', tmp_path / 'timm.safetensors', 'timm')
    theirs = timm.create_model(f'mobileone_{arch}', num_classes=10).double().eval()
    if deploy:
        theirs = timm.utils.model.reparameterize_model(theirs)
    theirs.load_state_dict(read_checkpoint(tmp_path / 'timm.safetensors'), strict=True)
    assert load_weights(theirs, tmp_path / 'timm.safetensors').scheme == 'timm'
    ours = MobileOne(arch, deploy=deploy).double().eval()
    ours.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith('backbone.')})
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    features = ours(x)[0].mean((2, 3))
    scores = features @ state['head.fc.weight'].T + state['head.fc.bias']
    assert max_difference(theirs(x), scores)[1] < 1e-12


@pytest.mark.parametrize('arch', list(ARCHS))
def test_sizes_are_recognised(arch):
    for deploy in (False, True):
        with torch.device('meta'):
            layout = MobileOne(arch, deploy=deploy).state_dict()
        state = {k: torch.ones(()).expand(v.shape) for k, v in layout.items()}
        old = {k: v for k, v in state.items() if 'num_batches' not in k}
        assert check_whole(state) == check_whole(old) == arch


def test_any_size_and_any_place_is_known_by_its_shapes():
    tiny = dict(
        num_blocks=[1, 3, 2, 1],
        width_factor=[0.25, 0.296875, 1.0, 0.0625],
        num_conv_branches=[1, 2, 3, 1],
        num_se_blocks=[0, 1, 0, 1],
    )
    for deploy in (False, True):
        own = MobileOne(tiny, in_channels=5, deploy=deploy).state_dict()
        state = {
            f'{place}.backbone.{k}': v for place in ('student', 'teacher') for k, v in own.items()
        }
        assert check_whole({**state, 'student.head.conv.weight': torch.ones(2, 2)}) is None
        del state['teacher.backbone.stage3.2.branch_reparam.weight' if deploy else
                  'teacher.backbone.stage3.2.branch_conv_list.1.conv.weight']  # fmt: skip
        with pytest.raises(InputError, match=r"lacks 'teacher\.backbone\.stage3\.2\.branch_"):
            check_whole(state)


@pytest.mark.parametrize('option', ['use_scale', 'use_identity'])
def test_a_net_without_a_kind_of_branch_is_whole_but_no_public_size(option):
    with torch.device('meta'):
        layout = MobileOne('s1', **{option: False}).state_dict()
        whole = MobileOne('s1').state_dict()
    state = {k: torch.ones(()).expand(v.shape) for k, v in layout.items()}
    assert check_whole(state) is None
    # One unit that has what the others lack is damage.
    odd = next(k for k in whole if k not in layout and k.endswith('norm.weight'))
    with pytest.raises(InputError, match='lacks'):
        check_whole({**state, odd: torch.ones(whole[odd].shape)})


DEEP = Arch((1, 3, 6, 1), (0.0625,) * 4, (2,) * 4)
BRANCH = 'backbone.stage1.0.branch_conv_list.1.conv.weight'
STEM = 'backbone.stage0.branch_conv_list.0.conv.weight'
VARIANCE = 'backbone.stage1.0.branch_scale.norm.running_var'
POINTWISE = 'backbone.stage4.1.branch_conv_list.'


def without(*parts):
    return lambda state: {k: v for k, v in state.items() if not any(part in k for part in parts)}


def changed(part, value):
    def change(state):
        keys = [key for key in state if part in key and key.endswith('weight')] or [part]
        return {**state, **{key: value(state.get(key)) for key in keys}}

    return change


@pytest.mark.parametrize(
    ('damage', 'said'),
    [
        (without(BRANCH), f"lacks '{BRANCH}'"),
        (without('stage1.0.branch_conv_list.1.'), 'lacks .*stage1.0.branch_conv_list.1'),
        (without('stage3'), "lacks 'backbone.stage3.0'"),
        (without('stage3.11'), "lacks 'backbone.stage3.11"),
        (without('stage2.5.'), "lacks 'backbone.stage2.5'"),
        (without('stage0'), 'no convolution of a stem'),
        (without('stage2.4.branch_norm'), 'lacks .*stage2.4.branch_norm'),
        (without('fc.bias'), "lacks 'head.fc.bias'"),
        (changed(BRANCH, lambda v: v.tolist()), f"lacks '{BRANCH}'"),
        (changed(BRANCH, lambda v: v[:1]), r'is \[1, 1, 3, 3\], \[4, 1, 3, 3\] fits the rest'),
        (changed(STEM, lambda v: v.reshape(-1)), r"'backbone.stage0.* is \[108\]"),
        (changed(POINTWISE, lambda v: v[:0]), "lacks 'backbone.stage4"),
        (changed(POINTWISE, lambda v: v.sum()), "lacks 'backbone.stage4"),
        (changed(BRANCH, lambda v: v.int()), 'holds torch.int32 where floating point'),
        (changed(BRANCH, lambda v: v.to(torch.complex64)), 'holds torch.complex64'),
        (changed(BRANCH, lambda v: v * torch.nan), 'holds NaN or Inf'),
        (changed('head.fc.weight', lambda v: v * torch.inf), 'holds NaN or Inf'),
        (changed('head.fc.weight', lambda v: v[:, :5]), "'head.fc.weight' is \\[10, 5\\]"),
        (changed('head.fc.weight', lambda v: v.sum()), "'head.fc.weight' is \\[\\]"),
        (changed('stage0.branch_conv', lambda v: v.reshape(-1)), r'\[108\], \[4, 3, 3, 3\] fits'),
        (changed('neck.scale', lambda _: torch.tensor(torch.nan)), "'neck.scale' holds NaN"),
        (changed(VARIANCE, lambda v: -v), 'holds a negative variance'),
        (changed('backbone.stage1.0.more.weight', lambda _: torch.ones(1)), 'stage1.0.more.weight'),
        (changed('backbone.stage1.9.branch_norm.weight', lambda _: torch.ones(48)), 'lacks'),
    ],
)  # fmt: skip
def test_damaged_files_are_not_converted(damage, said, tmp_path):
    torch.save({'state_dict': damage(classifier_state(DEEP))}, tmp_path / 'in.pth')
    for how in (dict(form='deploy'), dict(to='apple'), {}):
        match = f"checkpoint '{tmp_path / 'in.pth'}': .*{said}"
        with pytest.raises(InputError, match=match) as caught:
            convert_weights(tmp_path / 'in.pth', tmp_path / 'out.pth', **how)
        assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out.pth').exists()


def test_what_is_written(tmp_path, monkeypatch):
    """Metadata beside the weights, in safetensors as strings; other code bases take a bare dict."""
    source, state = tmp_path / 'own.pth', classifier_state()
    torch.save(state, source)
    monkeypatch.setenv('HOME', str(tmp_path))
    convert_weights(source, '~/a.pth')
    read = read_checkpoint(tmp_path / 'a.pth')
    assert read['meta'] == {'mobileone_mm': __version__, 'source': 'own.pth'}
    assert same(read['state_dict'], state)
    with pytest.raises(InputError, match='is the input'):
        convert_weights('~/own.pth', source)
    monkeypatch.setattr('mobileone_mm.weights.convert.local_file', lambda _: source)
    convert_weights('mobileone_mm://s0-apple', tmp_path / 'b.pt')
    assert read_checkpoint(tmp_path / 'b.pt')['meta']['source'] == 'mobileone_mm://s0-apple'
    library = pytest.importorskip('safetensors')
    columns = {'a': torch.arange(6.0).view(2, 3).t()}
    data = weight_bytes(columns, {'cfg': 'text', 'epoch': 3, 'source': 'x'}, '.safetensors')
    (tmp_path / 'c.safetensors').write_bytes(data)
    with library.safe_open(tmp_path / 'c.safetensors', 'pt') as file:
        assert file.metadata() == {'format': 'pt', 'source': 'x'}
        assert torch.equal(file.get_tensor('a'), columns['a'])
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(InputError, match='pip install safetensors'):
        weight_bytes(columns, {}, '.safetensors')


def test_half_precision_is_fused_to_float32(tmp_path):
    half = cast(classifier_state(), torch.float16)
    for name, state in (('half', half), ('single', cast(half, torch.float32))):
        torch.save(state, tmp_path / f'{name}.pth')
        convert_weights(tmp_path / f'{name}.pth', tmp_path / f'{name}_out.pth', form='deploy')
    one, other = (read_weights(tmp_path / f'{name}_out.pth').state for name in ('half', 'single'))
    units = [key for key in one if 'branch_reparam' in key]
    assert units
    assert all(one[key].dtype == torch.float32 for key in units)
    assert all(torch.equal(one[key], other[key]) for key in units)
    assert one['head.fc.weight'].dtype == torch.float16


@pytest.mark.parametrize('places', [('net.backbone.',), ('student.', 'teacher.')])
def test_one_mobileone_at_its_usual_place_is_needed(places, tmp_path):
    state = {k.removeprefix('backbone.'): v for k, v in classifier_state().items()}
    torch.save({f'{place}{k}': v for place in places for k, v in state.items()}, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=f"a MobileOne below '{places[0]}'"):
        convert_weights(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_other_sizes_cannot_be_lifted(tmp_path):
    state = reparameterize_model(randomize_(MobileOne(SMALL)).eval()).state_dict()
    torch.save(state, tmp_path / 'tiny.pth')
    assert convert_weights(tmp_path / 'tiny.pth', tmp_path / 'a.pth', 'apple')['arch'] is None
    with pytest.raises(InputError, match='no public size'):
        convert_weights(tmp_path / 'tiny.pth', tmp_path / 'b.pth', form='train')
    assert not (tmp_path / 'b.pth').exists()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (('own.pth', 'own.pth'), 'is the input'),
        (('own.pth', 'out.bin'), 'a name that ends in'),
        (('resnet.pth', 'out.pth'), 'not those of a MobileOne'),
        (('own.pth', 'out.pth', 'keras'), "to: got 'keras'; mmpretrain, apple, timm, corenet are"),
        (('own.pth', 'out.pth', 'apple', 'x'), "form: got 'x'; train, deploy are allowed"),
    ],
)
def test_bad_input(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(classifier_state(), 'own.pth')
    torch.save({'conv1.weight': torch.ones(1)}, 'resnet.pth')
    before = (tmp_path / 'own.pth').read_bytes()
    with pytest.raises(InputError, match=said):
        convert_weights(*arguments)
    assert (tmp_path / 'own.pth').read_bytes() == before
    assert not list(tmp_path.glob('out*'))


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    torch.save(classifier_state(), tmp_path / 'own.pth')
    monkeypatch.setattr(os, 'fsync', Mock(side_effect=OSError(errno.ENOSPC, 'No space left')))
    with pytest.raises(InputError, match='the disk is full'):
        convert_weights(tmp_path / 'own.pth', tmp_path / 'out.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['own.pth']


def test_tool_lifts_and_fuses(tool, tmp_path, capsys):
    source, out, again = (tmp_path / name for name in ('own.pth', 'timm.safetensors', 'again.pth'))
    state = cast(classifier_state(deploy=True), torch.float64)
    torch.save(state, source)
    assert tool('convert_weights', source, out, '--to', 'timm', '--form', 'train') == 0
    said = capsys.readouterr().out
    assert 'MobileOne-MU0' in said
    assert 'mmpretrain (deploy) -> timm (train)' in said
    assert 'RecalibrateHook' in said
    assert read_weights(out).form == 'train'
    assert tool('convert_weights', out, again, '--form', 'deploy') == 0
    torch.testing.assert_close(read_weights(again).state, state, rtol=0, atol=1e-13)
