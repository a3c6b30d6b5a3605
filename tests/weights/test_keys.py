"""The key table against itself, mmpretrain's class and the spellings of the public files."""

from __future__ import annotations

import pytest
import torch

from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.weights import names as keys
from mobileone_mm.weights.names import (
    SCHEMES,
    TensorName,
    form_of,
    parse,
    render,
    scheme_of,
    to_classifier,
    to_mmpretrain,
    to_scheme,
)

FOREIGN = [name for name in SCHEMES if name != 'mmpretrain']


@pytest.fixture(scope='module', params=['s0', 's4'])
def states(request):
    """Keys of both forms of a backbone with classifier; S4 has squeeze-and-excitation."""
    model = MobileOne(request.param).eval()
    head = {'head.fc.weight': torch.zeros(2, 2), 'head.fc.bias': torch.zeros(2)}
    return {
        'train': {**model.state_dict(), **head},
        'deploy': {**reparameterize_model(model).state_dict(), **head},
    }


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('form', ['train', 'deploy'])
def test_every_key_there_and_back(states, scheme, form):
    foreign = {}
    for key, value in states[form].items():
        name = parse(key, 'mmpretrain')
        assert name is not None, key
        foreign[render(name, scheme)] = value
    assert len(foreign) == len(states[form])
    assert scheme_of(foreign) == scheme
    assert form_of(foreign) == form
    back = to_mmpretrain(foreign)
    assert list(back) == list(states[form])
    assert all(back[key] is states[form][key] for key in back)


@pytest.mark.parametrize(
    ('scheme', 'key', 'name'),
    [
        ('apple', 'stage0.rbr_conv.0.conv.weight', TensorName(0, 'conv', 'weight', None, 0)),
        ('apple', 'stage3.17.rbr_skip.running_var', TensorName(3, 'identity', 'running_var', 17)),
        ('apple', 'stage3.19.se.expand.bias', TensorName(3, 'se_expand', 'bias', 19)),
        ('apple', 'linear.bias', TensorName(None, 'classifier', 'bias')),
        ('timm', 'stem.conv_scale.bn.bias', TensorName(0, 'scale_norm', 'bias')),
        ('timm', 'stages.0.1.conv_kxk.3.conv.weight', TensorName(1, 'conv', 'weight', 1, 3)),
        ('timm', 'stages.3.0.attn.fc1.weight', TensorName(4, 'se_reduce', 'weight', 0)),
        ('corenet', 'conv_1.reparam_conv.bias', TensorName(0, 'fused', 'bias')),
        (
            'corenet',
            'layer_5.1.rbr_scale.block.norm.weight',
            TensorName(4, 'scale_norm', 'weight', 1),
        ),
        (
            'corenet',
            'layer_2.0.rbr_conv.0.block.conv.weight',
            TensorName(1, 'conv', 'weight', 0, 0),
        ),
        ('mmpretrain', 'stage4.0.branch_scale.conv.weight', TensorName(4, 'scale', 'weight', 0)),
    ],
)
def test_spellings(scheme, key, name):
    assert parse(key, scheme) == name
    assert render(name, scheme) == key


@pytest.mark.parametrize(
    'key',
    ['stage0.rbr_dense.conv.weight', 'stage1.rbr_conv.0.conv.weight', 'stage5.0.rbr_skip.bias'],
)
def test_neighbours_are_not_parsed(key):
    assert parse(key, 'apple') is None


def test_other_nets_are_not_taken_for_a_mobileone():
    for other in (
        ['conv1.weight', 'layer1.0.conv1.weight'],
        ['stage0.rbr_dense.conv.weight'],  # RepVGG
        ['stem.conv_kxk.conv.weight'],  # timm's RepVGG
        ['stem.0.conv_kxk.0.conv.weight'],  # timm's FastViT
        [],
    ):
        assert scheme_of(other) is None
        assert form_of(other) is None


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'student.backbone.', 'module.backbone.'])
def test_form_of_whole_models(states, prefix):
    for form, state in states.items():
        assert form_of([f'{prefix}{key}' for key in state]) == form


def test_mixed_forms_are_an_error(states):
    with pytest.raises(InputError, match='fused and unfused'):
        form_of([*states['train'], *states['deploy']])


def test_classifier_layout(states):
    target = to_classifier(states['deploy'])
    assert {key.partition('.')[0] for key in target} == {'backbone', 'head'}
    assert to_classifier(target) == target
    assert to_mmpretrain(target).keys() == states['deploy'].keys()


def test_other_parts_of_a_hosts_file_stay(states):
    state = {f'backbone.{key}': 0 for key in states['train'] if key.startswith('stage')}
    assert 'bbox_head.x.weight' in to_mmpretrain({**state, 'bbox_head.x.weight': 0})


@pytest.mark.parametrize('scheme', FOREIGN)
def test_an_unknown_key_of_a_foreign_file_is_named(states, scheme):
    foreign = {render(parse(k, 'mmpretrain'), scheme): v for k, v in states['deploy'].items()}
    with pytest.raises(InputError, match="'classifier.extra' is unknown"):
        to_mmpretrain({**foreign, 'classifier.extra': 0})


@pytest.mark.parametrize('scheme', FOREIGN)
def test_other_parts_of_a_foreign_file_stay_if_asked(states, scheme):
    foreign = {render(parse(k, 'mmpretrain'), scheme): v for k, v in states['deploy'].items()}
    renamed = to_mmpretrain({**foreign, 'decoder.extra': 0}, keep_others=True)
    assert renamed.keys() == states['deploy'].keys() | {'decoder.extra'}


def test_an_unknown_scheme_is_named(states):
    with pytest.raises(InputError, match=r"to: got 'keras'; mmpretrain, apple, timm, corenet are"):
        to_scheme(states['deploy'], 'keras')


def test_not_a_mobileone():
    with pytest.raises(InputError, match=r'conv1\.weight'):
        to_mmpretrain({'conv1.weight': 0})


def test_one_tensor_under_two_names():
    state = {'stage0.reparam_conv.weight': 0, 'linear.bias': 1}
    with pytest.raises(InputError, match='twice'):
        to_mmpretrain({**state, 'backbone.stage0.reparam_conv.weight': 2})


@pytest.mark.parametrize('arch', ['s0', 's4'])
@pytest.mark.parametrize('form', ['train', 'deploy'])
def test_mmpretrain_loads_apples_names(arch, form):
    """Apple's keys, renamed, are exactly those of the installed mmpretrain's class."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.models.backbones import MobileOne as HostMobileOne

    model = HostMobileOne(arch, deploy=form == 'deploy')
    names = [parse(key, 'mmpretrain') for key in model.state_dict()]
    assert None not in names
    values = model.state_dict().values()
    apple = {render(name, 'apple'): v for name, v in zip(names, values, strict=True)}
    assert not apple.keys() & model.state_dict().keys()
    model.load_state_dict(to_mmpretrain(apple), strict=True)


def test_apples_real_file(real_data):
    from mobileone_mm.weights.reading import read_checkpoint

    state = read_checkpoint(real_data / 'weights' / 'mobileone_s0_apple_fused.pth')
    assert (keys.scheme_of(state), form_of(state)) == ('apple', 'deploy')
    renamed = to_mmpretrain(state)
    classifier = {key: renamed.pop(f'head.fc.{key}') for key in ('weight', 'bias')}
    assert classifier['weight'].shape == (1000, 1024)
    MobileOne('s0', deploy=True).load_state_dict(renamed, strict=True)
