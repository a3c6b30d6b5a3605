"""``type='mobileone_mm.MobileOne'`` from every default scope, whoever is imported first."""

import pytest

from helpers import python
from mobileone_mm import compat

# mmengine finds the package by the scope in the name. No host is imported before one is needed.
ALONE = """
import sys
from mmengine.registry import MODELS as root
node = dict(type='mobileone_mm.MobileOne', arch='s0', deploy=True)
assert 'mobileone_mm' not in sys.modules
print(type(root.build(node)).__module__)
from mobileone_mm.registry import MODELS, TRANSFORMS
assert MODELS.get('MobileOne') is MODELS.get('mobileone_mm.MobileOne')
assert not {'mmdet', 'mmseg', 'mmpretrain'} & {m.split('.')[0] for m in sys.modules}
print(MODELS.get('SSDHead').__module__, TRANSFORMS.get('LoadImage').__module__)
"""
SCOPES = """
import importlib
from mmengine.registry import DefaultScope
node = dict(type='mobileone_mm.MobileOne', arch='s0', deploy=True)
for scope in ('mmpretrain', 'mmdet', 'mmseg'):
    with DefaultScope.overwrite_default_scope(scope):
        root = importlib.import_module(f'{scope}.registry').MODELS
        print(type(root.build(node)).__module__)
        if scope == 'mmpretrain':  # the bare name is the host's own, the prefixed one never is
            print(type(root.build(dict(node, type='MobileOne'))).__module__)
"""
OURS = 'mobileone_mm.models.mobileone'
FOUND = [OURS, 'mmpretrain.models.backbones.mobileone', OURS, OURS]


def run(program):
    lines = python('-c', program).stdout.splitlines()
    return [line for line in lines if line.startswith(('mobileone_mm', 'mmp'))]


def test_without_a_host_and_then_from_every_scope():
    lines = run(ALONE + SCOPES)
    assert lines == [OURS, 'mobileone_mm.models.ssd mobileone_mm.data.loading', *FOUND]


# Where a host does not import without our stand-ins, somebody must import mobileone_mm first (a tool
# of ours, or a config's custom_imports); elsewhere mmengine finds it alone.
@pytest.mark.parametrize('last', ['import mobileone_mm', ''])
def test_hosts_that_are_imported_first(last):
    if not last and compat.status()['torchvision'] != 'native':
        pytest.skip('torchvision has no compiled operators here: mmseg does not import by itself')
    assert run(f'import mmengine, mmseg, mmdet, mmpretrain\n{last}\n{SCOPES}') == FOUND
