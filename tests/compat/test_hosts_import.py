"""The hosts import, whichever way round, on the environment that runs the tests."""

from pathlib import Path

import mobileone_mm  # isort: skip

import pytest

for _host in ('mmpretrain', 'mmdet', 'mmseg'):
    pytest.importorskip(_host)

HOSTS = ('mmpretrain.models', 'mmdet.apis', 'mmseg.apis')


def test_hosts_import_without_placeholders(python):
    code = f"""
import mobileone_mm
{chr(10).join(f'import {host}' for host in HOSTS)}
from mobileone_mm.compat import placeholders, status
assert not placeholders(), placeholders()
print('status', status())
"""
    result = python('-W', 'error::RuntimeWarning', '-c', code)
    assert f'status {mobileone_mm.compat.status()}' in result.stdout
    assert 'Fail to import' not in result.stderr


def test_hosts_import_after_failed_attempts(python):
    """Half-imported modules are forgotten; mmcv, which swallowed its failure, is completed."""
    code = """
for first in ('mmcv.ops', 'mmpretrain.models'):
    try:
        __import__(first)
    except (RuntimeError, ImportError) as error:
        print(error)
import mobileone_mm
import mmpretrain.models
import torch, mmcv.ops
boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8]])
assert mmcv.ops.nms(boxes, torch.tensor([.1, .2]), .5)[1].tolist() == [1]
print('fine')
"""
    assert 'fine' in python('-c', code).stdout


def test_a_host_that_was_first_with_placeholders_is_named(tmp_path: Path, python):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').write_text(
        'def batched_nms(*args):\n'
        '    raise RuntimeError("batched_nms requires mmcv to be compiled with ops. Please ...")\n\n'
        'class CARAFEPack:\n'
        '    def __init__(self):\n'
        '        raise RuntimeError("CARAFEPack requires mmcv to be compiled with ops.")\n\n'
        'def harmless():\n    return 1\n'
    )
    code = 'import mmdet\nimport mobileone_mm\nimport mobileone_mm.compat as c; c.install()'
    lines = python('-c', code, path=[tmp_path]).stderr.splitlines()
    warned = [line for line in lines if 'RuntimeWarning' in line]
    assert len(warned) == 1
    assert 'CARAFEPack, batched_nms of mmcv' in warned[0]
    assert 'harmless' not in warned[0]
    assert 'import mobileone_mm first' in warned[0]
    assert 'python -m mobileone_mm.compat SCRIPT' in warned[0]
    silent = python('-W', 'error', '-c', 'import mobileone_mm, mmdet', path=[tmp_path])
    assert silent.stderr == ''
