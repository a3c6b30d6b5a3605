"""A backbone with use_se=False takes the weights of S4, says what it leaves out, and nothing more."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from mobileone_mm import MobileOne, load_weights
from mobileone_mm.errors import InputError
from mobileone_mm.models import get_arch
from mobileone_mm.reparam.compare import randomize_
from mobileone_mm.weights.fit import checkpoint_for
from mobileone_mm.weights.mmengine_loader import use_safe_loader

# S4's pattern of units with squeeze-and-excitation, at a size for tests.
TINY = dict(
    num_blocks=(1, 1, 2, 1), width_factor=(0.25, 0.25, 0.25, 0.25), num_se_blocks=(0, 0, 1, 1)
)


def net(seed=None, **more):
    model = MobileOne(TINY, **more)
    return model if seed is None else randomize_(model, seed=seed)


def classifier_state(seed=1):
    state = {f'backbone.{key}': value for key, value in net(seed).state_dict().items()}
    return {**state, 'head.fc.weight': torch.zeros(3, 4), 'head.fc.bias': torch.zeros(3)}


@pytest.fixture
def said(monkeypatch):
    """Return the lines that loading logs."""
    lines = []
    monkeypatch.setattr('mobileone_mm.weights.fit.print_log', lambda text, *_: lines.append(text))
    return lines


def test_s4_has_48_tensors_of_it():
    with torch.device('meta'):
        model = MobileOne('s4')
        bare = MobileOne('s4', use_se=False)
    keys = set(model.state_dict()) - set(bare.state_dict())
    assert len(keys) == 48
    assert all('.se.' in key for key in keys)
    assert get_arch('s4').num_se_blocks == (0, 0, 5, 1)


@pytest.mark.parametrize('way', ['load_weights', 'init_cfg', 'load_from'])
def test_all_the_rest_is_taken(way, tmp_path, said, monkeypatch):
    state, model = classifier_state(), net(seed=2, use_se=False)
    expected = {k: v for k, v in net(seed=1).state_dict().items() if '.se.' not in k}
    if way == 'load_weights':
        report = load_weights(model, state)
        assert sum('.se.' in key for key in report.unexpected) == 0
        found = model.state_dict()
    elif way == 'load_from':
        whole = torch.nn.Module()
        whole.backbone = model
        checkpoint_for(whole, state, 'backbone').load(whole)
        found = model.state_dict()
    else:
        use_safe_loader()
        torch.save(state, tmp_path / 's4.pth')
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 's4.pth'), prefix='backbone')
        settings = dict(type='mobileone_mm.MobileOne', arch=TINY, use_se=False, init_cfg=init)
        model = MODELS.build(settings)
        model.init_weights()
        found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    lines = [line for line in said if 'squeeze-and-excitation' in line]
    assert len(lines) == 1
    assert '16 tensors' in lines[0]
    assert 'use_se=False' in lines[0]


def test_nothing_is_said_without_it(said):
    load_weights(net(use_se=False), net(seed=1, use_se=False).state_dict())
    assert not said


def test_the_other_way_is_an_error():
    """Squeeze-and-excitation at its random start behind trained units is no start."""
    with pytest.raises(InputError, match='without squeeze-and-excitation, the model with'):
        checkpoint_for(net(), net(seed=1, use_se=False).state_dict())


def test_whole_models_are_no_start():
    """A test of a segmentor must not leave out what it was trained with."""
    whole = torch.nn.Module()
    whole.backbone = net(use_se=False)
    state = {k: v for k, v in classifier_state().items() if k.startswith('backbone.')}
    with pytest.raises(InputError, match='with squeeze-and-excitation, the model without'):
        checkpoint_for(whole, state)
    with pytest.raises(InputError, match='with squeeze-and-excitation, the model without'):
        load_weights(whole, state)


@pytest.mark.parametrize('load', [load_weights, checkpoint_for])
def test_other_units_are_never_left_out(load):
    """Branches that the model has not are a part of the function of the file."""
    four = MobileOne(dict(TINY, num_conv_branches=(4, 4, 4, 4)))
    one = MobileOne(dict(TINY, num_conv_branches=(1, 1, 1, 1)))
    with pytest.raises(InputError, match='another size: units or branches differ'):
        load(one, four.state_dict())
