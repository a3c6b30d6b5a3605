"""Where the weights of a checkpoint are, and what of it is left; tensors of one number."""

import logging

import pytest
import torch

from helpers import SMALL
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.weights.names import to_scheme
from mobileone_mm.weights.unwrap import (
    is_average,
    is_of_mmengine,
    read_weights,
    shared_prefix,
    without_wrappers,
)

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
        (
            {'current_model_state': ONE, 'averaging_state': {}},
            'current_model_state',
            ('averaging_state',),
        ),
    ],
)
def test_entries(content, entry, dropped):
    found = read_weights(content)
    assert (found.entry, found.dropped, found.state) == (entry, dropped, ONE)
    assert found.averaged == entry.startswith('ema')
    assert read_weights(found) is found
    assert (found.scheme, found.form, found.name) == (None, None, 'checkpoint')
    assert found.meta == ({'x': 1} if 'meta' in content else {})


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ({}, r"^checkpoint 'x': holds no weights \(found: nothing\)"),
        (dict.fromkeys('abcd'), r'\(found: a, b, c\)'),
        ({'state_dict': [torch.ones(1)]}, 'no weights'),
        ({'w' * 201: torch.ones(1)}, "^checkpoint 'x': holds a weight under 'www"),
        ({'module.backbone.' + STEM: torch.ones(1), 'module.h': torch.ones(1), 'h': torch.ones(1)},
         'a weight twice'),
    ],
)  # fmt: skip
def test_refused(content, said):
    with pytest.raises(InputError, match=said):
        read_weights(content, 'x')


@pytest.mark.parametrize(('depth', 'found'), [(3, 'a'), (4, 'b')])
def test_callbacks_are_read_as_deep_as_entries(depth, found):
    content = {'callbacks': {'EMA': {'a': torch.ones(1), **STEPS}}, 'b': torch.ones(1)}
    for _ in range(depth):
        content = {'state_dict': content}
    assert read_weights(content).state.keys() == {found}


@pytest.mark.parametrize(
    ('more', 'levels'),
    [
        ({'ema': ONE}, [logging.INFO]),
        ({'ema': {'b': torch.ones(1)}}, [logging.WARNING]),
        ({'ema': ONE, 'swa': ONE}, [logging.WARNING]),
        ({'ema': ONE, 'swa': {'b': torch.ones(1)}}, [logging.INFO] * 2),
        ({}, []),
    ],
)
def test_what_the_log_says_is_a_warning_unless_one_set_is_meant(more, levels, monkeypatch):
    found = []
    name = 'mobileone_mm.weights.unwrap.print_log'
    monkeypatch.setattr(name, lambda text, logger, level: found.append(level))
    read_weights({'model': TWO, **more})
    assert found == levels


def test_averages_are_compared_under_one_naming_and_without_counters():
    state = MobileOne(SMALL).state_dict()
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    apple = {**to_scheme(state, 'apple'), 'neck.w': torch.ones(1)}
    mixed = {**state, **reparameterize_model(MobileOne(SMALL).eval()).state_dict()}
    for raw, average, used in (
        (state, {**floats, **STEPS}, True),
        ({**state, **STEPS}, floats, False),  # the raw weights are averages themselves
        (apple, state, False),
        (apple, {**state, 'neck.w': torch.ones(1)}, True),
        (mixed, state, True),  # nothing can be compared with damage
    ):
        entry = read_weights({'model': raw, 'model_ema': average}).entry
        assert (entry == 'model_ema') == (used or 'steps' in raw)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, False),
        ({'message_hub': {}}, True),
        ({'meta': {'mmengine_version': '0.10.7'}}, True),
        ({'meta': 3}, False),
        ({'ema_state_dict': STEPS}, True),
        ({'ema_state_dict': 3, 'message_hub': {}}, False),
        ({'state_dict': None, 'message_hub': {}}, False),
    ],
)
def test_what_mmengine_wrote(change, expected):
    content = {'state_dict': {}, 'ema_state_dict': {}, **change}
    if content['state_dict'] is None:
        del content['state_dict']
    assert is_of_mmengine(content) == expected


def test_names_of_averages():
    names = ('ema', 'model_ema', 'ema_net', 'net_swa_2', 'avg', 'average', 'averaged_x', 'shadow')
    assert all(map(is_average, names))
    assert not any(map(is_average, ('schema', 'emanet', 'averages', 'state_dict', 3, None)))


@pytest.mark.parametrize(
    ('keys', 'prefix'),
    [
        ((), ''),
        (('a', 'b'), ''),
        (('module.a', 'module.b.c'), 'module.'),
        (('module._orig_mod.model.a',), 'module._orig_mod.model.'),
        (('module.model.a', 'module.b'), 'module.'),
        (('module.a', 'b'), ''),
        (('module.a', 'module.'), ''),
        (('net.a',), ''),
    ],
)
def test_shared_prefix(keys, prefix):
    assert shared_prefix(keys) == prefix


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        (('module.a', 'module.b'), ('a', 'b')),
        ((STEM, 'fc.a'), (STEM, 'fc.a')),
        (('module.' + STEM, 'fc.a'), (STEM, 'fc.a')),
        (('encoder.' + STEM, 'fc.a'), ('backbone.' + STEM, 'fc.a')),
        (('model.encoder._orig_mod.' + STEM, 'model.a'), ('backbone.' + STEM, 'a')),
        (('model.encoder.' + STEM, 'b.model.a'), ('backbone.' + STEM, 'b.model.a')),
        (('net.backbone.' + STEM, 'net.a'), ('net.backbone.' + STEM, 'net.a')),
        (('encoder.' + STEM, 'b.' + STEM), ('encoder.' + STEM, 'b.' + STEM)),
    ],
)
def test_without_wrappers(before, after):
    assert without_wrappers(dict(zip(before, 'xy', strict=True))) == dict(
        zip(after, 'xy', strict=True)
    )


def test_a_number_may_be_shown_a_million_times():
    shown = torch.ones(())
    assert read_weights({'w' * 200: shown.expand(4 + (1 << 20)), **STEPS}).state.keys() == {
        'w' * 200
    }
    for size in (5 + (1 << 20), 1 << 21):
        with pytest.raises(InputError, match=rf'take \(\[{size}, 1, 1, 1, 1, 1\] of 4 bytes\)'):
            read_weights({'w': shown.expand(size).view(size, *[1] * 6)})
