"""The hosts import, whichever way round, on the environment that runs the tests."""

from pathlib import Path

import mobileone_mm
from helpers import python, write_files

PLACEHOLDERS = """
def batched_nms(*args):
    raise RuntimeError("batched_nms requires mmcv to be compiled with ops. Please ...")
class CARAFEPack:
    def __init__(self):
        raise RuntimeError("CARAFEPack requires mmcv to be compiled with ops.")
def harmless():
    return 1
"""


def test_hosts_import_without_placeholders():
    code = """
import mobileone_mm
import mmpretrain.models, mmdet.apis, mmseg.apis
from mobileone_mm.compat import placeholders, status
assert not placeholders(), placeholders()
print('status', status())
"""
    result = python('-W', 'error::RuntimeWarning', '-c', code)
    assert f'status {mobileone_mm.compat.status()}' in result.stdout
    assert 'Fail to import' not in result.stderr


def test_hosts_import_after_failed_attempts():
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


def test_a_host_that_was_first_with_placeholders_is_named(tmp_path: Path):
    write_files(tmp_path, {'mmdet/__init__.py': PLACEHOLDERS})
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
