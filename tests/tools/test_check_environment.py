"""``tools/misc/check_environment.py`` reports what is missing, and never ends in a traceback."""

import pytest

from helpers import ROOT, python

HIDE = """
import runpy, sys
hidden = sys.argv.pop().split(',')
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in hidden:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Nothing())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in hidden else real(name, *rest)
sys.argv = ['check_environment.py']
runpy.run_path('tools/misc/check_environment.py', run_name='__main__')
"""


@pytest.mark.parametrize(
    ('hidden', 'line'),
    [('mmengine,mmcv,mmdet,mmseg,mmpretrain', 'no host'), ('torchvision', 'does not import: Mod')],
)
def test_what_is_missing_is_named(hidden: str, line: str):
    result = python('-c', HIDE, hidden, fails=True, cwd=ROOT)
    assert result.returncode == 2, result.stdout + result.stderr
    assert line in result.stdout + result.stderr
    assert 'Traceback' not in result.stderr
    assert result.stderr.splitlines()[-1].startswith('error: environment: ')


def test_a_wrong_argument_is_one_line():
    result = python('tools/misc/check_environment.py', '--all', fails=True, cwd=ROOT)
    assert result.returncode == 2
    assert result.stderr == 'error: unrecognized arguments: --all; see --help\n'
