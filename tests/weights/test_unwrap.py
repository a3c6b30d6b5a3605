"""Where the weights of a checkpoint are, and what of it is left; tensors of one number."""

import logging

import pytest
import torch

from helpers import SMALL
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.weights import unwrap
from mobileone_mm.weights.names import to_scheme
from mobileone_mm.weights.unwrap import is_average, is_of_mmengine, read_weights

ONE, TWO = {'a': torch.ones(1)}, {'a': torch.zeros(1)}
STEPS = {'steps': torch.ones(1)}
STEM = 'stage0.rbr_conv.0.conv.weight'


@pytest.mark.parametrize(
    ('content', 'entry', 'dropped'),
    [
        ({**ONE, 'epoch': 3}, 'the file', ()),
        ({'state_dict': ONE, 'optimizer': {}, 'meta': {'x': 1}}, 'state_dict', ('optimizer',)),
        ({'model': {'net': ONE}, 'epoch': 3}, 'model.net', ('epoch',)),
        ({'model': TWO, 'ema': {'module': ONE}}, 'ema.module', ('model',)),
        ({'current_model_state': ONE, 'averaging_state': {}}, 'current_model_state',
         ('averaging_state',)),
    ],
)  # fmt: skip
def test_entries(content, entry, dropped):
    found = read_weights(content)
    assert read_weights(found) is found
    assert (found.entry, found.dropped, found.state) == (entry, dropped, ONE)
    assert found.averaged == entry.startswith('ema')
    assert (found.scheme, found.form, found.name) == (None, None, 'checkpoint')
    assert found.meta == content.get('meta', {})


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ({}, r"^checkpoint 'x': holds no weights \(found: nothing\)"),
        (dict.fromkeys('abcd'), r'\(found: a, b, c\)'),
        ({'state_dict': [torch.ones(1)]}, 'no weights'),
        ({'net': {'net': {'net': {'net': {'net': ONE}}}}}, r'no weights \(found: net\)'),
        ({'w' * 201: torch.ones(1)}, "^checkpoint 'x': holds a weight under 'www"),
        (dict.fromkeys((f'module.backbone.{STEM}', 'module.h', 'h'), torch.ones(1)), 'a weight twice'),
    ],
)  # fmt: skip
def test_refused(content, said):
    with pytest.raises(InputError, match=said):
        read_weights(content, 'x')


@pytest.mark.parametrize(('depth', 'found'), [(3, 'a'), (4, 'b')])
def test_callbacks_are_read_as_deep_as_entries(depth, found):
    content = {'callbacks': {'Callback': {'a': torch.ones(1), **STEPS}}, 'b': torch.ones(1)}
    for _ in range(depth):
        content = {'state_dict': content}
    assert read_weights(content).state.keys() == {found}


def test_what_the_log_says_is_a_warning_unless_one_set_is_meant(monkeypatch):
    found, bad = [], {'b': torch.ones(1)}
    name = 'mobileone_mm.weights.unwrap.print_log'
    monkeypatch.setattr(name, lambda text, logger, level: found.append(level))
    for ema in ({}, {'ema': ONE}, {'ema': ONE, 'swa': bad}, {'ema': bad}, {'ema': ONE, 'swa': ONE}):
        read_weights({'model': TWO, **ema})
    assert found == [logging.INFO] * 3 + [logging.WARNING] * 2


def test_averages_are_compared_under_one_naming_and_without_counters():
    state = MobileOne(SMALL).state_dict()
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    apple = {**to_scheme(state, 'apple'), 'neck.w': torch.ones(1)}
    mixed = {**state, **reparameterize_model(MobileOne(SMALL).eval()).state_dict()}
    for raw, average, used in (
        (state, {**floats, **STEPS}, True),
        (apple, state, False),
        (apple, {**state, 'neck.w': torch.ones(1)}, True),
        (mixed, state, True),  # nothing can be compared with damage
    ):
        assert read_weights({'model': raw, 'model_ema': average}).averaged == used


def test_what_mmengine_wrote():
    both, hub = {'state_dict': {}, 'ema_state_dict': {}}, {'message_hub': {}}
    for yes in (hub, {'meta': {'mmengine_version': '0.10.7'}}):
        assert is_of_mmengine({**both, **yes})
    # A script of the user may store an ExponentialMovingAverage of mmengine.
    for no in ({}, {'meta': 3}, {'ema_state_dict': STEPS}, {**hub, 'ema_state_dict': 3}):
        assert not is_of_mmengine({**both, **no})
    assert not is_of_mmengine({'ema_state_dict': {}, **hub})


def test_names_of_averages():
    names = 'ema model_ema net_swa_2 avg averaged_x shadow polyak EMA modelEma EMAModel'
    assert all(map(is_average, names.split()))
    assert not any(
        map(is_average, ('schema', 'emanet', 'averages', 'SchemaX', 'state_dict', 3, None))
    )


def test_prefixes_of_wrappers():
    for keys, prefix in (
        ('', ''), ('a b', ''), ('module.a b', ''), ('module.a module.', ''), ('net.a', ''),
        ('module.a module.b.c', 'module.'), ('module.model.a module.b', 'module.'),
        ('module._orig_mod.model.a', 'module._orig_mod.model.'),
    ):  # fmt: skip
        assert unwrap.shared_prefix(keys.split()) == prefix
    for before, after in (
        ('module.a module.b', 'a b'),
        ('@ fc.a', '@ fc.a'),
        ('module.@ fc.a', '@ fc.a'),
        ('encoder.@ fc.a', 'backbone.@ fc.a'),
        ('model.encoder._orig_mod.@ model.a', 'backbone.@ a'),
        ('model.encoder.@ b.model.a', 'backbone.@ b.model.a'),
        ('net.backbone.@ net.a', 'net.backbone.@ net.a'),
        ('encoder.@ b.@', 'encoder.@ b.@'),
    ):
        before, after = (keys.replace('@', STEM).split() for keys in (before, after))
        assert unwrap.without_wrappers(dict.fromkeys(before)) == dict.fromkeys(after)
    assert unwrap.without_wrappers({'module.a': 1, 'module.b': 2}) == {'a': 1, 'b': 2}


def test_a_number_may_be_shown_a_million_times():
    shown = torch.ones(())
    assert read_weights({'w' * 200: shown.expand(4 + (1 << 20)), **STEPS}).state.keys() == {
        'w' * 200
    }
    for size in (5 + (1 << 20), 1 << 21):
        with pytest.raises(InputError, match=rf'take \(\[{size}, 1, 1, 1, 1, 1\] of 4 bytes\)'):
            read_weights({'w': shown.expand(size).view(size, *[1] * 6)})
