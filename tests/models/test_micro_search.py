"""Counts of parameters and MACs, and the search that finds the micro models again."""

from __future__ import annotations

import importlib.util
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mobileone_mm import MobileOne
from mobileone_mm.cli.run import call_tool
from mobileone_mm.errors import InputError
from mobileone_mm.models import ARCHS, Arch
from mobileone_mm.models.count import count
from mobileone_mm.models.micro_search import TARGETS, Criteria, closed_form, deviations, search

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {  # fused, unfused, MACs
    's0': (2_078_504, 5_293_272, 275_110_400),
    's1': (4_764_840, 4_825_192, 825_057_024),
    's2': (7_808_168, 7_884_648, 1_298_426_496),
    's3': (10_078_312, 10_170_600, 1_895_790_592),
    's4': (14_838_352, 14_951_248, 2_979_269_760),
}
MICRO = {name: ARCHS[name] for name in TARGETS}
TOOL = ROOT / 'tools' / 'analysis_tools' / 'search_micro.py'
TINY = Arch((1, 2, 3, 1), (0.375, 0.25, 0.25, 0.25), (1, 2, 3, 1), (0, 1, 2, 1))


def built_counts(arch, num_classes, size, in_channels):
    """The same three numbers from the network itself, built on no memory and run once."""
    with torch.device('meta'):
        forms = [
            MobileOne(arch, in_channels=in_channels, deploy=deploy, init_cfg=None).eval()
            for deploy in (True, False)
        ]
    features = forms[0].out_channels[-1]
    parameters = [sum(p.numel() for p in form.parameters()) for form in forms]
    macs = features * num_classes

    def add(module, inputs, output):
        nonlocal macs
        macs += output[0].numel() * module.weight[0].numel()

    for module in forms[0].modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    forms[0](torch.empty(1, in_channels, *size, device='meta'))
    return (*(n + (features + 1) * num_classes for n in parameters), macs)


@pytest.mark.parametrize('name', PUBLISHED)
def test_counts_of_the_papers_sizes(name):
    assert count(name) == PUBLISHED[name]


@pytest.mark.parametrize('arch', [TINY, *MICRO.values()])
@pytest.mark.parametrize(
    ('num_classes', 'size', 'in_channels'),
    [(1000, (224, 224), 3), (0, (97, 130), 4), (1, (1, 7), 1), (1, (7, 1), 1)],
)
def test_counts_are_those_of_the_built_network(arch, num_classes, size, in_channels):
    expected = built_counts(arch, num_classes, size, in_channels)
    assert count(arch, num_classes, size, in_channels) == expected


def test_the_closed_form_counts_what_is_built():
    factors = np.array([(0.5, 0.5, 0.5, 0.75), (1.5, 0.75, 1.0, 1.0), (1.0, 1.0, 0.5, 0.25)])
    channels = (factors * (64, 128, 256, 512)).astype(int).T
    found = closed_form((np.minimum(64, channels[0]), *channels), (2, 3, 4, 1))
    built = [count(Arch((2, 3, 4, 1), tuple(row))) for row in factors]
    assert found[0].tolist() == [counts.parameters_fused for counts in built]
    assert found[1].tolist() == [counts.macs for counts in built]


@pytest.mark.parametrize(
    ('arguments', 'error', 'name'),
    [
        (dict(arch='s9'), ValueError, 'arch'),
        (dict(arch='s0', num_classes=-1), ValueError, 'num_classes'),
        (dict(arch='s0', num_classes=10.0), TypeError, 'num_classes'),
        (dict(arch='s0', in_channels=0), ValueError, 'in_channels'),
        (dict(arch='s0', input_size=0), ValueError, 'input_size'),
        (dict(arch='s0', input_size=(224, 224, 3)), ValueError, 'input_size'),
        (dict(arch='s0', input_size=(224, 0)), ValueError, 'input_size'),
        (dict(arch='s0', input_size=2.5), TypeError, 'input_size'),
    ],
)
def test_count_refuses_bad_arguments(arguments, error, name):
    with pytest.raises(error, match=f'^{name}: got [^\n]+$'):
        count(**arguments)


def test_search_finds_the_micro_models_and_no_other():
    families = search()
    assert [family.archs for family in families] == [MICRO]


@pytest.mark.parametrize('name', TARGETS)
def test_micro_models_have_the_published_figures(name):
    counts, target = count(name), TARGETS[name]
    assert max(deviations(name, ARCHS[name])) <= 0.02
    digits = -round(math.log10(target.parameters_digit))
    assert round(counts.parameters_fused, digits) == pytest.approx(target.parameters)
    assert round(counts.macs, -6) == target.macs


def test_micro_models_keep_the_familys_shape():
    channels = [(arch.stem_channels, *arch.channels) for arch in MICRO.values()]
    for narrow, wide in pairwise(channels):
        assert all(a <= b for a, b in zip(narrow, wide, strict=True))
    for arch in MICRO.values():
        assert arch.num_blocks == (2, 4, 6, 1)
        assert not any(c % 8 for c in arch.channels)
        growth = [b / a for a, b in pairwise(arch.channels)]
        assert 1.5 <= min(growth) <= max(growth) <= 4
        assert not any(arch.num_se_blocks)


@pytest.mark.parametrize(
    ('criteria', 'families', 'patterns'),
    [
        (Criteria(min_growth=1.75), 0, 0),
        (Criteria(min_growth=1.25), 4, 2),
        (Criteria(step=0.25), 0, 0),
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
    ('criteria', 'name'),
    [
        (Criteria(step=0.1), 'step'),
        (Criteria(step=0.0), 'step'),
        (Criteria(step=math.nan), 'step'),
        (Criteria(min_growth=5.0), 'min_growth'),
        (Criteria(min_growth=math.nan), 'min_growth'),
        (Criteria(tolerance=-1.0), 'tolerance'),
    ],
)
def test_search_refuses_bad_criteria(criteria, name):
    with pytest.raises(InputError, match=f'^{name}: got [^\n]+$'):
        search(criteria)


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


@pytest.mark.parametrize(
    ('arguments', 'code', 'text'),
    [([], 0, 'channels 40 / 40 / 80 / 128 / 384'), (['--step', '0.1'], 2, 'error: step: got 0.1;')],
)
def test_tool(arguments, code, text):
    done = subprocess.run(
        [sys.executable, str(TOOL), *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == code, done.stderr
    assert text in (done.stderr if code else done.stdout)
    assert not (done.stdout if code else done.stderr)


def test_tool_fails_if_the_size_table_differs(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location('search_micro', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(ARCHS, 'mu0', ARCHS['s1'])
    assert call_tool(module.main, []) == 1
    assert capsys.readouterr().err.startswith('error: the size table')
    assert call_tool(module.main, ['--min-growth', '1.25']) == 0
