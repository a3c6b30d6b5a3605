"""Counts of parameters and MACs, and the search that finds the micro models again."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from helpers import ROOT
from mobileone_mm import MobileOne
from mobileone_mm.errors import InputError
from mobileone_mm.models import ARCHS, Arch
from mobileone_mm.models.count import count
from mobileone_mm.models.micro_search import TARGETS, Criteria, closed_form, deviations, search

PUBLISHED = {  # fused, unfused, MACs
    's0': (2_078_504, 5_293_272, 275_110_400),
    's1': (4_764_840, 4_825_192, 825_057_024),
    's2': (7_808_168, 7_884_648, 1_298_426_496),
    's3': (10_078_312, 10_170_600, 1_895_790_592),
    's4': (14_838_352, 14_951_248, 2_979_269_760),
}
MICRO = {name: ARCHS[name] for name in TARGETS}
TINY = Arch((1, 2, 3, 1), (0.375, 0.25, 0.25, 0.25), (1, 2, 3, 1), (0, 1, 2, 1))


def built_counts(arch, num_classes, size):
    """The same three numbers from the network itself, built on no memory and run once."""
    with torch.device('meta'):
        forms = [MobileOne(arch, deploy=d, init_cfg=None).eval() for d in (True, False)]
    features = forms[0].out_channels[-1]
    parameters = [sum(p.numel() for p in form.parameters()) for form in forms]
    macs = features * num_classes

    def add(module, inputs, output):
        nonlocal macs
        macs += output[0].numel() * module.weight[0].numel()

    for module in forms[0].modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    forms[0](torch.empty(1, 3, size, size, device='meta'))
    return (*(n + (features + 1) * num_classes for n in parameters), macs)


@pytest.mark.parametrize('name', PUBLISHED)
def test_counts_of_the_papers_sizes(name):
    assert count(name) == PUBLISHED[name]


@pytest.mark.parametrize('arch', [TINY, *MICRO.values()])
@pytest.mark.parametrize(('num_classes', 'size'), [(1000, 224), (0, 97), (1, 1), (1, 7)])
def test_counts_are_those_of_the_built_network(arch, num_classes, size):
    assert count(arch, num_classes, size) == built_counts(arch, num_classes, size)


def test_the_closed_form_counts_what_is_built():
    factors = np.array([(0.5, 0.5, 0.5, 0.75), (1.5, 0.75, 1.0, 1.0), (1.0, 1.0, 0.5, 0.25)])
    channels = (factors * (64, 128, 256, 512)).astype(int).T
    found = closed_form((np.minimum(64, channels[0]), *channels), (2, 3, 4, 1))
    built = [count(Arch((2, 3, 4, 1), tuple(row))) for row in factors]
    assert found[0].tolist() == [counts.parameters_fused for counts in built]
    assert found[1].tolist() == [counts.macs for counts in built]


def test_search_finds_the_micro_models_and_no_other():
    assert [family.archs for family in search()] == [MICRO]


@pytest.mark.parametrize('name', TARGETS)
def test_micro_models_have_the_published_figures(name):
    counts, target = count(name), TARGETS[name]
    assert max(deviations(name, ARCHS[name])) <= 0.02
    digits = -round(math.log10(target.parameters_digit))
    assert round(counts.parameters_fused, digits) == pytest.approx(target.parameters)
    assert round(counts.macs, -6) == target.macs


@pytest.mark.parametrize(
    ('criteria', 'families', 'patterns'),
    [
        (Criteria(min_growth=1.75), 0, 0),
        (Criteria(min_growth=1.25), 4, 2),
        (Criteria(step=0.25), 0, 0),
        (Criteria(step=0.5, min_growth=0.5), 0, 0),
        (Criteria(as_printed=False), 318, 26),
    ],
)
def test_what_other_rules_would_find(criteria, families, patterns):
    """The table of docs/micro_models.md."""
    found = search(criteria)
    assert len(found) == families
    assert len({family.num_blocks for family in found}) == patterns
    errors = [family.worst_error for family in found]
    assert errors == sorted(errors)
    assert all(max(deviations(n, a)) <= 0.02 for f in found for n, a in f.archs.items())


@pytest.mark.parametrize(
    ('name', 'bad'), [('step', (0.1, 0.0, math.nan)), ('min_growth', (5.0, math.nan, 0.0))]
)
def test_search_refuses_bad_criteria(name, bad):
    for value in bad:
        with pytest.raises(InputError, match=f'^{name}: got [^\n]+$'):
            search(Criteria(**{name: value}))


def test_the_docs_table_is_the_size_table():
    text = (ROOT / 'docs' / 'micro_models.md').read_text()
    for name, arch in MICRO.items():
        row = re.search(rf'^\| `{name}` \|(.*)\|$', text, re.MULTILINE).group(1)
        depths, factors, channels, k, fused, unfused, macs = map(str.strip, row.split('|'))
        counts = count(arch)
        assert depths == ', '.join(map(str, arch.num_blocks))
        assert factors == ', '.join(map(str, arch.width_factor))
        assert channels == ' / '.join(map(str, (arch.stem_channels, *arch.channels)))
        assert (k,) * 4 == tuple(map(str, arch.num_conv_branches))
        assert fused.startswith(f'{counts.parameters_fused:,} ')
        assert unfused == f'{counts.parameters_unfused:,}'
        assert macs.startswith(f'{counts.macs:,} ')


def test_tool(tool, monkeypatch, capsys):
    assert tool('search_micro') == 0
    out, err = capsys.readouterr()
    assert err == ''
    assert 'channels 40 / 40 / 80 / 128 / 384' in out
    assert tool('search_micro', '--step', '0.1') == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith('error: step: got 0.1;')
    monkeypatch.setitem(ARCHS, 'mu0', ARCHS['s1'])
    assert tool('search_micro') == 1
    assert capsys.readouterr().err.startswith('error: the size table')
    assert tool('search_micro', '--min-growth', '1.25') == 0
