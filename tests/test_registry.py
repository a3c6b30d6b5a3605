"""``type='mobileone_mm.MobileOne'`` from every default scope, whoever is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mobileone_mm import compat

PROGRAM = """
import importlib, sys
for name in {first!r}:
    importlib.import_module(name)
from mmengine.registry import DefaultScope, MODELS, init_default_scope
if {scope!r}:
    init_default_scope({scope!r})
    root = importlib.import_module({scope!r} + '.registry').MODELS
else:
    root = MODELS
model = root.build(dict(type='mobileone_mm.MobileOne', arch='s0', deploy=True))
print(type(model).__module__)
if {scope!r} == 'mmpretrain':  # the bare name is the host's own, the prefixed one never is
    print(type(root.build(dict(type='MobileOne', arch='s0', deploy=True))).__module__)
"""
OURS = 'mobileone_mm.models.mobileone'


def run(program):
    result = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [line for line in result.stdout.splitlines() if line.startswith(('mobileone_mm', 'mmp'))]


# Where a host does not import without our stand-ins, somebody must import mobileone_mm first (a tool
# of ours, or a config's custom_imports); elsewhere mmengine finds it alone.
needs_native = pytest.mark.skipif(
    compat.status()['torchvision'] != 'native',
    reason='torchvision has no compiled operators here, so mmseg does not import by itself',
)
# (modules imported first, default scope)
CASES = [
    ((), None),
    (('mobileone_mm',), 'mmpretrain'),
    (('mobileone_mm', 'mmpretrain.models'), 'mmpretrain'),
    (('mobileone_mm',), 'mmdet'),
    (('mobileone_mm', 'mmpretrain.models', 'mmdet.models'), 'mmdet'),
    (('mobileone_mm',), 'mmseg'),
    (('mmengine', 'mmdet', 'mobileone_mm'), 'mmdet'),
    (('mmengine', 'mmseg', 'mmpretrain', 'mobileone_mm'), 'mmseg'),
    pytest.param(('mmengine', 'mmseg', 'mmpretrain'), 'mmseg', marks=needs_native),
]


@pytest.mark.parametrize(('first', 'scope'), CASES, ids=lambda v: '+'.join(v) if v else 'none')
def test_found_from_every_scope(first, scope):
    lines = run(PROGRAM.format(first=first, scope=scope))
    assert lines[0] == OURS
    if scope == 'mmpretrain':
        assert lines[1].startswith('mmpretrain.models')


def test_lazy_names_do_not_import_a_host():
    lines = run(
        'import sys\n'
        'from mobileone_mm.registry import MODELS, TRANSFORMS\n'
        "MODELS.get('MobileOne'); MODELS.get('mobileone_mm.MobileOne')\n"
        "assert not {'mmdet', 'mmseg', 'mmpretrain'} & {m.split('.')[0] for m in sys.modules}\n"
        "head = MODELS.get('SSDHead')\n"
        'print(head.__module__)\n'
        "print(TRANSFORMS.get('LoadImage').__module__)\n"
    )
    assert lines == ['mobileone_mm.models.ssd', 'mobileone_mm.data.loading']
