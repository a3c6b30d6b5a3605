"""``python -m mobileone_mm.compat``: a program runs as Python would run it, children included."""

import json
from pathlib import Path

import pytest

from helpers import python, write_files
from mobileone_mm.compat.__main__ import main

PROBE = """
import json, sys
print(json.dumps([__name__, sys.argv, sys.path[0], __file__, sys.modules['__main__'].__file__]))
if sys.argv[-1] == 'fail':
    sys.exit(5)
"""
# The top level needs a stand-in, in the parent and again in each spawned child.
LOADER = """
import multiprocessing
import torch
from mmcv._ext import nms

def kept(_):
    boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [40, 40, 50, 50]])
    return nms(boxes, torch.tensor([.5, .4, .3]), iou_threshold=0.5, offset=0).tolist()

if __name__ == '__main__':
    import sys
    for start in sys.argv[1:]:
        with multiprocessing.get_context(start).Pool(1) as pool:
            print(pool.map(kept, range(2)))
"""
# A program that has this package, and a child whose first import is a function that needs mmcv.
PARENT = """
import mobileone_mm
import multiprocessing
from needs_ops import kept
import __main__
del __main__.__file__  # the child has no program to run first, as in a notebook
with multiprocessing.get_context('spawn').Pool(1) as pool:
    print(pool.map(kept, range(2)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'binary').write_bytes(b'\x7fELF\0\1\2\xff')
    files = {
        'zeros.py': 'print(1)\0',
        'bin/probe.py': PROBE,
        'bin/loader.py': LOADER,
        'bin/needs_ops.py': LOADER,
        'bin/parent.py': PARENT,
        'bin/mmcv/__init__.py': '',  # no compiled operators, and nothing slow
    }
    return write_files(tmp_path, files)


@pytest.mark.parametrize(
    ('cwd', 'args'),
    [('.', ('bin/probe.py', '-m', '--flag', 'x y')), ('bin', ('probe.py', '--flag'))],
)
def test_a_program_sees_what_python_shows_it(cwd, args, folder: Path):
    plain = python(*args, cwd=folder / cwd)
    ours = python('-m', 'mobileone_mm.compat', *args, cwd=folder / cwd)
    assert json.loads(ours.stdout) == json.loads(plain.stdout)


def test_exit_codes(folder: Path, capsys):
    script = folder / 'bin/probe.py'
    assert python('-m', 'mobileone_mm.compat', script, 'fail', fails=True).returncode == 5
    assert main(['--help']) == 0
    assert capsys.readouterr().out.startswith('usage:')
    for bad in ((), ('-m', 'probe'), ('--flag', 'x.py')):
        assert main(bad) == 2
        assert capsys.readouterr().err.startswith('usage:')
    for name in ('no.py', 'binary', 'zeros.py'):
        said = 'a file' if name == 'no.py' else 'a Python file'
        assert main([str(folder / name)]) == 2
        line = f'SCRIPT: {folder / name} is not {said}; give the path of a script\n'
        assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ('cwd', 'args', 'times'),
    [
        ('.', ('-m', 'mobileone_mm.compat', 'bin/loader.py', 'fork', 'spawn', 'forkserver'), 3),
        ('.', ('bin/parent.py',), 1),  # the child's first import is the function it unpickles
    ],
)
def test_children(cwd, args, times, folder: Path):
    assert python(*args, cwd=folder / cwd).stdout.splitlines() == ['[[0, 2], [0, 2]]'] * times
