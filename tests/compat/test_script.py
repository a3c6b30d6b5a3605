"""``python -m mobileone_mm.compat``: a program runs as Python would run it, children included."""

from __future__ import annotations

import json
from pathlib import Path

import mobileone_mm  # noqa: F401  isort: skip

import pytest

PROBE = """
import json, sys
print(json.dumps([__name__, sys.argv, sys.path[0], __file__, sys.modules['__main__'].__file__]))
if sys.argv[-1] == 'fail':
    sys.exit(5)
"""
# The top level needs a stand-in, in the parent and again in each spawned child.
LOADER = """
import mmcv.ops
import torch
from torch.utils.data import DataLoader, Dataset
from mmcv.ops import nms

class Boxes(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [40, 40, 50, 50]])
        return nms(boxes, torch.tensor([.5, .4, .3]), 0.5)[1]

if __name__ == '__main__':
    import sys
    for start in sys.argv[1:]:
        loader = DataLoader(Boxes(), num_workers=1, multiprocessing_context=start)
        print([batch.tolist() for batch in loader])
"""
# A program that has this package, and a child whose first import is a dataset that needs mmcv.
PARENT = """
import mobileone_mm
import pickle, sys
from torch.utils.data import DataLoader
from needs_ops import Boxes
import __main__
del __main__.__file__  # the child has no program to run first, as in a notebook
loader = DataLoader(Boxes(), num_workers=1, multiprocessing_context='spawn')
print([batch.tolist() for batch in loader])
"""
EXPECTED = '[[[0, 2]], [[0, 2]], [[0, 2]]]'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'probe.py').write_text(PROBE)
    (tmp_path / 'bin' / 'loader.py').write_text(LOADER)
    (tmp_path / 'bin' / 'needs_ops.py').write_text(LOADER)
    return tmp_path


def test_a_script_sees_what_python_shows_it(folder: Path, python):
    args = ('bin/probe.py', '-m', '--flag', 'x y')
    plain = python(*args, cwd=folder)
    ours = python('-m', 'mobileone_mm.compat', *args, cwd=folder)
    assert json.loads(ours.stdout) == json.loads(plain.stdout)
    assert json.loads(ours.stdout)[1] == list(args)


def test_a_module_sees_what_python_shows_it(folder: Path, python):
    args = ('-m', 'probe', '--flag')
    plain = python(*args, cwd=folder / 'bin')
    ours = python('-m', 'mobileone_mm.compat', *args, cwd=folder / 'bin')
    assert json.loads(ours.stdout) == json.loads(plain.stdout)


def test_exit_codes(folder: Path, python):
    command = ('-m', 'mobileone_mm.compat')
    assert python(*command, folder / 'bin/probe.py', 'fail', fails=True).returncode == 5
    assert python(*command, '--help').stdout.startswith('usage:')
    for bad in ((), ('-m',), ('--flag', 'x.py')):
        result = python(*command, *bad, fails=True)
        assert result.returncode == 2
        assert result.stderr.startswith('usage:')
    result = python(*command, 'missing.py', fails=True)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'SCRIPT: missing.py is not a file; give the path of a script'
    ]


def test_workers_of_a_script(folder: Path, python):
    pytest.importorskip('mmcv')
    command = ('-m', 'mobileone_mm.compat', 'bin/loader.py', 'fork', 'spawn', 'forkserver')
    assert python(*command, cwd=folder).stdout.splitlines() == [EXPECTED] * 3


def test_workers_of_a_module(folder: Path, python):
    pytest.importorskip('mmcv')
    command = ('-m', 'mobileone_mm.compat', '-m', 'loader', 'spawn')
    assert python(*command, cwd=folder / 'bin').stdout.strip() == EXPECTED


def test_workers_without_a_program(folder: Path, python):
    """The child's first import is the dataset it unpickles."""
    pytest.importorskip('mmcv')
    (folder / 'bin' / 'parent.py').write_text(PARENT)
    assert python('bin/parent.py', cwd=folder).stdout.strip() == EXPECTED
