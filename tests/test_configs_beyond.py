"""The stronger detector and segmentor: what they cost beside SSDLite and DeepLabV3, and that they fold.

The latency ratios of docs/recipes.md:
    OMP_NUM_THREADS=1 python -m pytest -q -s -m slow tests/test_configs_beyond.py
"""

import re
from functools import cache, partial
from statistics import median

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers import ROOT
from mobileone_mm.benchmark.timer import interleaved
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy.config import build_model
from mobileone_mm.deploy.fold import build_deploy_form, foldable
from mobileone_mm.deploy.forward import RawForward
from mobileone_mm.models.count import count_macs

pytestmark = pytest.mark.usefixtures('own_scope')
PAGE = (ROOT / 'docs' / 'recipes.md').read_text()
PEERS = {'rtmdet': ('ssdlite', 'coco', 320), 'deeplabv3plus': ('deeplabv3', 'voc', 512)}
NARROW = {'model.decode_head.channels': 128}
CASES = [
    (kind, size, options)
    for kind, options in (('rtmdet', {}), ('deeplabv3plus', {}), ('deeplabv3plus', NARROW))
    for size in ('s0', 's1', 's2')
]
IDS = ['-'.join((*case[:2], *map(str, case[2].values()))) for case in CASES]
ROW = re.compile(
    r'^\| `(\w+)`(?:, (\d+) channels)? \| ([\d.]+) M \| ([\d.]+) G \| ([\d.]+) M \| ([\d.]+) G \| '
    r'([\d.]+) \|$',
    re.MULTILINE,
)


def deployed(name: str, options: dict, device: str = 'cpu') -> nn.Module:
    """The deploy form of a config, without the head that only training has; every norm folds."""
    config = load_config(ROOT / 'configs' / f'{name}.py', options)
    trained = build_model(config)
    folding = build_deploy_form(config, trained, foldable(trained))
    model = folding.model.to(device)
    if hasattr(model, 'auxiliary_head'):
        del model.auxiliary_head
    if name.startswith(tuple(PEERS)):
        assert not folding.left
        assert not any(isinstance(module, _BatchNorm) for module in model.modules())
    return model.eval()


def names_of(kind: str, size: str) -> list[str]:
    """The stronger config and its peer."""
    peer, data, _ = PEERS[kind]
    return [f'{name}_mobileone_{size}_{data}' for name in (kind, peer)]


@cache
def cost(name: str, side: int, *options: tuple) -> list[float]:
    """Parameters and MACs in millions and billions."""
    model = deployed(name, dict(options), 'meta')
    inputs = torch.empty(1, 3, side, side, device='meta')
    return [
        sum(p.numel() for p in model.parameters()) / 1e6,
        count_macs(partial(RawForward(model), model, inputs)) / 1e9,
    ]


def documented(kind: str, size: str, options: dict) -> list[float]:
    rows = {row[:2]: [float(value) for value in row[2:]] for row in ROW.findall(PAGE)}
    assert len(rows) == len(CASES)
    return rows[f'{kind}_mobileone_{size}_{PEERS[kind][1]}', '128' if options else '']


@pytest.mark.parametrize(('kind', 'size', 'options'), CASES, ids=IDS)
def test_cost(kind, size, options):
    name, peer = names_of(kind, size)
    side = PEERS[kind][2]
    figures = cost(name, side, *options.items()) + cost(peer, side)
    assert figures == pytest.approx(documented(kind, size, options)[:4], abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'size', 'options'), CASES, ids=IDS)
def test_latency(kind, size, options):
    torch.manual_seed(0)
    side = PEERS[kind][2]
    image = torch.randn(1, 3, side, side)
    models = map(deployed, names_of(kind, size), (options, {}))
    functions = {model: partial(RawForward(model), model, image) for model in models}
    with torch.no_grad():
        ours, theirs = map(median, interleaved(functions, repeats=50, budget=20).values())
    name = ', '.join((kind, size, *map(str, options.values())))
    print(f'{name}: {ours / theirs:.2f} of the time of {PEERS[kind][0]}')
    assert ours / theirs == pytest.approx(documented(kind, size, options)[4], rel=0.3)
