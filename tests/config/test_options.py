"""Values of --cfg-options: mmengine's forms give what they give there, and spaces stay."""

import re
from contextlib import suppress

import pytest
from mmengine.config import DictAction

from helpers import ROOT, cfg_options
from mobileone_mm.config.options import parse_value

SIMPLE = [
    '', '1', '-3', '08', '1e-3', '.5', 'inf', 'True', 'true', 'FALSE', 'None', 'none', 'SGD', 's2',
    '1,2,3', '1,a,None', 'a,', '[]', '()', '[1,2]', '(1,2)', '(1)', '(a)', '[a,b]', '(0.9,1.3)',
    '[(1,2),[3,a],c]', '[[1]]', "'text'", '"[1,2]"', '[true,None,1e-3]', '/data/a(1/b.pth',
    'http://host/a?b=c', 'epoch_{}.pth', 'a-b.c/d_e', '(((1)))', '1_000',
    'mobileone_mm://s2-apple', '{{$ROOT:data}}',
]  # fmt: skip


def documented():
    """The values of all options in README and docs that mmengine can read."""
    found = set()
    for page in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
        for value in re.findall(r'[\w}.]+=("[^"\n]*"|\'[^\'\n]*\'|[^\s"\'`]+)', page.read_text()):
            if not re.search(r'[ {}]|dict\(|\.\.\.', value):
                found.add(value)
    return sorted(found)


@pytest.mark.parametrize('text', SIMPLE)
def test_mmengines_forms_give_what_they_give_there(text):
    value, theirs = parse_value(text), DictAction._parse_iterable(text)
    assert repr(value) == repr(theirs)


def test_values_of_the_docs_give_what_they_give_there():
    values = documented()
    assert len(values) > 60
    for text in values:
        with suppress(AssertionError, RecursionError):
            theirs = DictAction._parse_iterable(text)
            if theirs != parse_value(text):
                pytest.fail(f'{text}: {parse_value(text)}, not {theirs}')


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('a folder/b', 'a folder/b'),
        ("('big person','chair')", ('big person', 'chair')),
        ("('traffic light',)", ('traffic light',)),
        ("('traffic light')", ('traffic light',)),
        ('[traffic light, stop sign]', ['traffic light', 'stop sign']),
        ('1, 2', [1, 2]),
        ("['1', 2]", ['1', 2]),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('dict(temperature=4.0,alpha=0.9)', {'temperature': 4.0, 'alpha': 0.9}),
        ("dict(type='X', b=[dict(c=(1,))])", {'type': 'X', 'b': [{'c': (1,)}]}),
        ("[{'type': 'EMAHook', 'momentum': 1e-3}]", [{'type': 'EMAHook', 'momentum': 1e-3}]),
        ("[dict(type='A'),dict(type='B')]", [{'type': 'A'}, {'type': 'B'}]),
        ('{}', {}),
        ('[1,2]x', '[1,2]x'),
    ],
)
def test_what_mmengine_cannot_read(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('dict(a=b)', 'is not a dict in Python'),
        ('{a: 1}', 'is not a dict in Python'),
        ('dict(**{})', 'is not a dict in Python'),
        ('[dict(a=b)]', 'is not a dict in Python'),
        ('[1,2', 'brackets'),
        ('1,2)', 'brackets'),
        ('{1,2}', 'is not a dict in Python'),
        ('{ ' + '{' * 5000, 'is not a dict in Python'),
    ],
)
def test_what_is_none_of_it(text, message):
    with pytest.raises(ValueError, match=message):
        parse_value(text)


def test_nothing_is_run(tmp_path):
    for text in (f"[open('{tmp_path}/x','w')]", f"dict(a=open('{tmp_path}/x','w'))", '[1+1]'):
        with suppress(ValueError):
            assert 2 not in list(parse_value(text))
    assert not list(tmp_path.iterdir())


def test_as_an_action(capsys):
    found = cfg_options('a.b=1', 'c=x=y', '--cfg-options', 'd= e f ')
    assert found == {'a.b': 1, 'c': 'x=y', 'd': 'e f'}
    for bad, message in (
        ('ab', "got 'ab'; expected KEY=VALUE"),
        ('=1', 'expected KEY=VALUE'),
        ('a=[1,2', 'a: got [1,2; its brackets [] are unbalanced'),
    ):
        with pytest.raises(SystemExit, match='^2$'):
            cfg_options(bad)
        assert message in capsys.readouterr().err
