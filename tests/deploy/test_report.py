"""The report of a conversion, from known parts."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mobileone_mm import __version__
from mobileone_mm.deploy import report as reports
from mobileone_mm.deploy.fold import Folding
from mobileone_mm.deploy.prove import Difference
from mobileone_mm.files import sha256_of
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.reparam.conv_norm import ConvNorm


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The report of one unit, with times that are given."""

    def times(runs, repeats, budget, device):
        assert repeats >= 3
        assert budget == reports.LATENCY_SECONDS
        assert device == torch.device('cpu')
        for run in runs.values():
            run()
        return dict(zip(runs, ([0.004, 0.002, 0.0030006], [0.002, 0.0020016, 0.5]), strict=True))

    monkeypatch.setattr(reports, 'interleaved', times)
    (tmp_path / 'net.pth').write_bytes(b'weights')
    model = nn.Sequential(MobileOneBlock(2, 4, 3))
    pairs = [ConvNorm('neck', 'neck.conv', 'neck.bn')]
    left = {'a.gn': 'is a GroupNorm', 'b.gn': 'is a GroupNorm', 'c.bn': 'is alone'}
    text = "path = '/home/me/data'"
    deployed = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1))
    folding = Folding(text, deployed, (('neck', 0, 'norm_cfg'),), pairs, left)
    fitted = SimpleNamespace(averaged=True, entry='state_dict', dropped=('optimizer', 'extra'))
    proofs = [
        (1e-9, [Difference('x', 'float64', 'output 0', 2e-11, 1e-12)]),
        (1e-4, [Difference('x', 'float32', 'output 0', a, r) for a, r in ((3e-5, 1e-6), (2e-5, 2e-6))]),
    ]  # fmt: skip
    inputs = torch.rand(1, 2, 5, 4)
    arguments = lambda m, x: m(x), model, folding, inputs, False, proofs
    found = reports.describe(tmp_path / 'net.pth', fitted, *arguments)
    assert found['source'] == {'file': 'net.pth', 'sha256': sha256_of(tmp_path / 'net.pth')}
    return found


def test_what_a_report_says(report):
    assert [d['absolute'] for d in report['proof']['differences']] == [2e-11, 3e-5, 2e-5]
    assert report['folded']['norms'] == ['neck.bn']
    assert report['folded']['config'] == ['model.neck.0.norm_cfg=None']
    assert (report['mobileone_mm'], report['proof']['device']) == (__version__, 'cpu')
    assert report['macs']['before'] == 2 * 4 * 9 * 20 + 2 * 4 * 20
    latency = [report['latency'][k] for k in ('median_ms_before', 'median_ms_after', 'ratio')]
    assert latency == [3.001, 2.002, 1.499]


SUMMARY = """\
units fused:            1
BN folded:              1
parameters:             96 -> 76
MACs:                   0.0 M -> 2.5 M (1 x 2 x 5 x 4)
checkpoint:             2.0 MB -> 1.5 MB
latency:                3.0 ms -> 2.0 ms (1.50 x, 1 x 2 x 5 x 4, cpu)
difference, float64:    1.0e-12 of the scale of the output (allowed 1.0e-09), 2.0e-11 absolute
difference, float32:    2.0e-06 of the scale of the output (allowed 1.0e-04), 3.0e-05 absolute
accuracy/top1:          70.1235 -> 70.1000
weights:                averaged (EMA or SWA), from 'state_dict'
left out:               optimizer, extra
left: a.gn and 1 more: is a GroupNorm
left: c.bn: is alone
paths in the config: /home/me/data
written: out/net.pt, out/net.py, out/net.json"""


def test_lines_to_read(report):
    report['checkpoint_bytes'] = {'before': 2e6, 'after': 1.5e6}
    report['macs']['after'] = 2.5e6
    report['metric'] = {'values': {'accuracy/top1': (70.12346, 70.1)}}
    assert reports.summary(report, 'out/net.pt') == SUMMARY
    report.update(ema=False, dropped=[], absolute_paths_in_config=[], metric={})
    report['folded'].update(backbone_only=True, left=[])
    lines = reports.summary(report, 'out/net.pt').splitlines()
    assert lines[1].split(':  ')[1].strip() == 'none (backbone only)'
    assert lines[-2:] == [f"weights:{'':16}as stored, from 'state_dict'", SUMMARY.splitlines()[-1]]
