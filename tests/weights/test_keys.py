"""The key table against itself, mmpretrain's class and the spellings of the public files."""

import pytest
import torch

from helpers import SMALL
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.weights.names import (
    SCHEMES,
    TensorName,
    form_of,
    parse,
    places,
    render,
    scheme_of,
    some_keys,
    to_classifier,
    to_scheme,
)
from mobileone_mm.weights.reading import read_checkpoint

FOREIGN = [name for name in SCHEMES if name != 'mmpretrain']
ARCH = dict(SMALL, num_blocks=[1, 2, 3, 1], num_se_blocks=[0, 1, 2, 1])


@pytest.fixture(scope='module')
def states():
    """Keys of both forms of a backbone with classifier, bare."""
    model = MobileOne(ARCH).eval()
    head = {'head.fc.weight': torch.zeros(2, 2), 'head.fc.bias': torch.zeros(2)}
    return {
        'train': {**model.state_dict(), **head},
        'deploy': {**reparameterize_model(model).state_dict(), **head},
    }


def named(state, scheme):
    return {render(parse(key, 'mmpretrain'), scheme): value for key, value in state.items()}


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('form', ['train', 'deploy'])
def test_every_key_there_and_back(states, scheme, form):
    foreign = named(states[form], scheme)
    assert len(foreign) == len(states[form])
    assert scheme_of(foreign) == scheme
    assert form_of(foreign) == form_of([f'student.backbone.{key}' for key in foreign]) == form
    back = to_classifier(foreign)
    assert [key.removeprefix('backbone.') for key in back] == list(states[form])
    assert {key.partition('.')[0] for key in back} == {'backbone', 'head'}
    assert all(back[key] is value for key, value in to_classifier(states[form]).items())
    assert to_classifier(back) == back
    if scheme != 'mmpretrain':
        assert to_scheme(back, scheme) == foreign


@pytest.mark.parametrize(
    ('scheme', 'key', 'name'),
    [
        ('apple', 'stage0.rbr_conv.0.conv.weight', (0, 'conv', 'weight', None, 0)),
        ('apple', 'stage2.1.rbr_conv.3.bn.running_mean', (2, 'conv_norm', 'running_mean', 1, 3)),
        ('apple', 'stage1.0.rbr_scale.bn.bias', (1, 'scale_norm', 'bias', 0)),
        ('apple', 'stage3.17.rbr_skip.running_var', (3, 'identity', 'running_var', 17)),
        ('apple', 'stage3.19.se.expand.bias', (3, 'se_expand', 'bias', 19)),
        ('apple', 'linear.bias', (None, 'classifier', 'bias')),
        ('timm', 'stem.conv_scale.bn.bias', (0, 'scale_norm', 'bias')),
        ('timm', 'stages.0.1.conv_kxk.3.conv.weight', (1, 'conv', 'weight', 1, 3)),
        ('timm', 'stages.3.0.attn.fc1.weight', (4, 'se_reduce', 'weight', 0)),
        ('corenet', 'conv_1.reparam_conv.bias', (0, 'fused', 'bias')),
        ('corenet', 'layer_5.1.rbr_scale.block.norm.weight', (4, 'scale_norm', 'weight', 1)),
        ('corenet', 'layer_2.0.rbr_conv.0.block.conv.weight', (1, 'conv', 'weight', 0, 0)),
        ('mmpretrain', 'stage4.0.branch_scale.conv.weight', (4, 'scale', 'weight', 0)),
    ],
)
def test_spellings(scheme, key, name):
    assert parse(key, scheme) == TensorName(*name)
    assert render(TensorName(*name), scheme) == key
    assert parse(f'a.{key}', scheme) == TensorName(*name, prefix='a.')


def test_other_nets_are_not_taken_for_a_mobileone():
    for key in ('stage0.rbr_dense.conv', 'stage1.rbr_conv.0.conv', 'stage5.0.rbr_skip'):
        assert parse(f'{key}.weight', 'apple') is None
    for other in (
        ['conv1.weight', 'layer1.0.conv1.weight'],
        ['stage0.rbr_dense.conv.weight'],  # RepVGG
        ['stem.conv_kxk.conv.weight'],  # timm's RepVGG
        ['stem.0.conv_kxk.0.conv.weight'],  # timm's FastViT
        [],
    ):
        assert scheme_of(other) is None
        assert form_of(other) is None


def test_places_and_some_keys():
    stems = [f'{place}stage0.rbr_conv.0.conv.weight' for place in ('', 'a.')]
    assert places(stems) == places(stems, 'apple') == {'', 'a.'}
    assert places(stems, 'timm') == places(['conv1.weight']) == set()
    assert [some_keys(keys) for keys in ('', 'abc', 'abcd')] == ['none', 'a, b, c', 'a, b, c, ...']


def test_other_parts_of_a_hosts_file_stay(states):
    state = {key: 0 for key in states['train'] if key.startswith('stage')}
    others = {'bbox_head.x.weight': 0, 'backbone.stage1.0.more': 0}
    expected = {f'backbone.{key}' for key in state} | others.keys()
    for prefix in ('', 'backbone.'):
        whole = {f'{prefix}{key}': 0 for key in state} | others
        assert to_classifier(whole).keys() == to_scheme(whole, 'mmpretrain').keys() == expected
    # An unknown key below a stage of a bare backbone is one of the backbone.
    assert 'backbone.stage1.0.more' in to_classifier({**state, 'stage1.0.more': 0})


@pytest.mark.parametrize('scheme', FOREIGN)
def test_other_parts_of_a_foreign_file_stay_only_if_asked(states, scheme):
    foreign = {**named(states['deploy'], scheme), 'classifier.extra': 0}
    with pytest.raises(InputError, match="'classifier.extra' is unknown"):
        to_classifier(foreign)
    renamed = to_classifier(foreign, keep_others=True)
    assert renamed.keys() == to_classifier(states['deploy']).keys() | {'classifier.extra'}


def test_what_cannot_be_renamed(states):
    deploy = states['deploy']
    with pytest.raises(InputError, match='fused and unfused'):
        form_of([*states['train'], *deploy])
    with pytest.raises(InputError, match=r"'bbox_head\.conv\.weight' is no part of a classifier"):
        to_scheme({**deploy, 'bbox_head.conv.weight': 0}, 'timm')
    for prefix in ('teacher.', 'neck.'):  # a MobileOne elsewhere is no backbone of a classifier
        with pytest.raises(InputError, match='is no part of a classifier'):
            to_scheme({f'{prefix}{key}': 0 for key in deploy}, 'timm')
    without_stem = {k: v for k, v in deploy.items() if 'stage0' not in k}
    for state in ({'conv1.weight': 0}, without_stem):
        with pytest.raises(InputError, match=rf'{next(iter(state))}.* no convolution of a stem'):
            to_classifier(state)
    twice = {'stage0.reparam_conv.weight': 0, 'backbone.stage0.reparam_conv.weight': 2}
    with pytest.raises(InputError, match='twice'):
        to_classifier({**twice, 'linear.bias': 1})


def test_apples_real_file(real_data):
    state = read_checkpoint(real_data / 'weights' / 'mobileone_s0_apple_fused.pth')
    assert (scheme_of(state), form_of(state)) == ('apple', 'deploy')
    renamed = {k.removeprefix('backbone.'): v for k, v in to_classifier(state).items()}
    classifier = {key: renamed.pop(f'head.fc.{key}') for key in ('weight', 'bias')}
    assert classifier['weight'].shape == (1000, 1024)
    MobileOne('s0', deploy=True).load_state_dict(renamed, strict=True)
