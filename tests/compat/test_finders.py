"""Who wins where there is a real module, what is mended where there is none, and the silence."""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

import pytest
import torch

from helpers import python, write_files
from mobileone_mm.compat import install, status
from mobileone_mm.compat.finders import Finder, is_stand_in
from mobileone_mm.compat.mmcv_ext import install_hint, missing

STRICT = ('-W', 'error')  # any warning is an error: where all is well nothing may be said
COUNTED = 'import builtins; builtins.runs = getattr(builtins, "runs", 0) + 1\n'
BROKEN = """
from . import part
if not hasattr(torch.ops.torchvision, 'nms'):
    half = 1
    raise RuntimeError('operator torchvision::nms does not exist')
from . import ops
from .ops import boxes
"""


def test_compiled_modules_are_left_alone(tmp_path: Path):
    """Also one that a finder finds which is appended later."""
    files = {'mmcv/__init__.py': '', 'torchvision/__init__.py': COUNTED}
    write_files(tmp_path, {**files, 'elsewhere.py': 'def nms():\n    return "native"\n'})
    code = """
import sys, mobileone_mm
from importlib.util import spec_from_file_location
class Late:
    def find_spec(self, name, path=None, target=None):
        if name == 'mmcv._ext':
            return spec_from_file_location(name, sys.argv[1])
sys.meta_path.append(Late())
import mmcv._ext, torchvision, builtins
assert mmcv._ext.nms() == 'native' and not hasattr(mmcv._ext, 'softnms')
assert mmcv._ext.__spec__.origin == sys.argv[1]
assert builtins.runs == 1
assert torchvision.__loader__ is torchvision.__spec__.loader
assert type(torchvision.__loader__).__name__ == 'SourceFileLoader'
print(mobileone_mm.compat.status())
assert 'mobileone_mm.compat.mmcv_ext' not in sys.modules, 'the stand-in was loaded'
assert 'mobileone_mm.compat.ops' not in sys.modules, 'the stand-in was loaded'
"""
    result = python(*STRICT, '-c', code, tmp_path / 'elsewhere.py', path=[tmp_path])
    assert result.stdout.strip() == str({'torchvision': 'native', 'mmcv._ext': 'native'})
    assert result.stderr == ''


def test_torchvision_without_operators_is_tried_again(tmp_path: Path):
    files = {
        '__init__.py': 'import torch\n' + COUNTED + BROKEN,
        'part.py': COUNTED,
        'ops/__init__.py': '',
        'ops/boxes.py': 'def _assert_has_ops():\n    raise RuntimeError("no ops")\n',
    }
    write_files(tmp_path / 'torchvision', files)
    code = """
import mobileone_mm, torch, torchvision, builtins, importlib.util
assert builtins.runs == 4, builtins.runs  # the package and its part, twice
assert not hasattr(torchvision, 'half')
assert type(torchvision.__spec__.loader).__name__ == 'SourceFileLoader'
assert importlib.util.find_spec('torchvision') is torchvision.__spec__
boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8]])
assert torch.ops.torchvision.nms(boxes, torch.tensor([.1, .2]), .5).tolist() == [1]
torchvision.ops.boxes._assert_has_ops()
print(mobileone_mm.compat.status()['torchvision'])
"""
    result = python(*STRICT, '-c', code, path=[tmp_path])
    assert result.stdout.strip() == 'stand-in'
    assert result.stderr == ''


def test_any_other_error_of_torchvision_passes(tmp_path: Path):
    text = COUNTED + 'raise RuntimeError("operator torchvision::nms does not exist, or so")\n'
    write_files(tmp_path, {'torchvision/__init__.py': text})
    code = """
import mobileone_mm, builtins
try:
    import torchvision
except RuntimeError as error:
    assert 'or so' in str(error) and builtins.runs == 1
    raise SystemExit(7)
"""
    assert python('-c', code, path=[tmp_path], fails=True).returncode == 7


def test_nothing_is_loaded_before_it_is_asked_for():
    code = """
import sys
from mobileone_mm.compat import status
from importlib.util import find_spec
assert find_spec('torchvision') is not None and 'torchvision' not in sys.modules
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name in ('mmcv', 'torchvision'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
print(status())
"""
    said = python(*STRICT, '-c', code).stdout.strip()
    assert said == str({'torchvision': 'absent', 'mmcv._ext': 'absent'})


def test_installing_twice_changes_nothing():
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before
    assert sum(isinstance(finder, Finder) for finder in before) == 1


def test_the_stand_in_has_a_real_spec():
    """mmengine asks importlib (OneDL) or pkgutil (original) for it, loaded or not."""
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    module = importlib.import_module('mmcv._ext')
    spec = importlib.util.find_spec('mmcv._ext')
    assert spec is module.__spec__
    assert spec.name == 'mmcv._ext'
    assert spec.loader is module.__loader__
    if hasattr(pkgutil, 'find_loader'):  # gone in Python 3.14
        assert pkgutil.find_loader('mmcv._ext') is spec.loader
    assert mmcv_full_available()
    assert is_stand_in(module) == (status()['mmcv._ext'] == 'stand-in')


def test_an_unknown_operator_fails_when_called_and_says_how_to_get_it():
    operator = missing('deform_conv_forward')
    with pytest.raises(NotImplementedError, match='deform_conv_forward') as caught:
        operator(torch.zeros(1), stride=2)
    message = str(caught.value)
    assert '\n' not in message
    assert 'MMCV_WITH_OPS=1 python -m pip install' in message
    with pytest.raises(AttributeError, match='__wrapped__'):
        missing('__wrapped__')
    if status()['mmcv._ext'] == 'stand-in':
        from mmcv.ops import DeformConv2d

        with pytest.raises(NotImplementedError, match='deform_conv_forward'):
            DeformConv2d(2, 2, 3)(torch.zeros(1, 2, 5, 5), torch.zeros(1, 18, 3, 3))


@pytest.mark.parametrize(
    ('installed', 'words', 'not_words'),
    [
        ({'onedl-mmcv': '2.3.6'}, ['onedl-mmcv==2.3.6', 'no-cache-dir'], ['uninstall', '<81']),
        ({'mmcv-lite': '2.1.0'}, ['mmcv==2.1.0', 'uninstall -y mmcv-lite', '<81'], ['onedl']),
        ({'mmcv': '2.2.0'}, ['mmcv==2.2.0', '<81'], ['onedl', 'uninstall']),
    ],
)  # fmt: skip
def test_the_hint_fits_the_distribution(installed, words, not_words, monkeypatch):
    monkeypatch.setattr('mobileone_mm.compat.mmcv_ext._version', installed.get)
    hint = install_hint()
    assert all(word in hint for word in words)
    assert not any(word in hint for word in not_words)
