"""The hosts import beside any release of transformers; only multimodal models may be missing."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

from helpers import python, write_files
from mobileone_mm.compat import complete_imported

IMPORTS = """
import mobileone_mm
import {hosts}
from mmpretrain.utils.dependency import WITH_MULTIMODAL
from mmpretrain.registry import MODELS
model = MODELS.build(dict(type='mobileone_mm.MobileOne', arch='s0'))
print(WITH_MULTIMODAL, type(model).__name__)
try:
    MODELS.build(dict(type='BlipCaption'))
except ImportError as error:  # mmpretrain's placeholder
    print(error)
"""
# The names that the two distributions import from pytorch_utils and modeling_utils.
NAMES = 'apply_chunking_to_forward = find_pruneable_heads_and_indices = prune_linear_layer = None\n'


def fake(folder: Path, number: str, names: str) -> Path:
    """Write a transformers that has a version, and modules with the given names."""
    info = f'Metadata-Version: 2.1\nName: transformers\nVersion: {number}\n'
    files = {
        'transformers/__init__.py': '',
        'transformers/activations.py': 'ACT2FN = {}\n',
        'transformers/modeling_outputs.py': '__getattr__ = lambda name: object\n',
        'transformers/modeling_utils.py': f'class PreTrainedModel: pass\n{names}',
        'transformers/pytorch_utils.py': names,
        'transformers/models/__init__.py': '',
        'transformers/models/bert/__init__.py': '',
        'transformers/models/bert/configuration_bert.py': 'class BertConfig: pass\n',
        f'transformers-{number}.dist-info/METADATA': info,
    }
    return write_files(folder, files)


def test_without_the_names_that_blip_imports(tmp_path: Path):
    code = IMPORTS.format(hosts='mmpretrain.models')
    output = python('-c', code, path=[fake(tmp_path, '5.0.0', '')]).stdout
    assert 'False MobileOne' in output
    assert 'multi-modal' in output


@pytest.mark.parametrize('names', ['', NAMES])
def test_what_is_imported_already_is_completed(tmp_path: Path, names: str, monkeypatch):
    """Multimodal models stay where transformers has all names."""
    dependency = ModuleType('mmpretrain.utils.dependency')
    dependency.__file__ = find_spec('mmpretrain.utils.dependency').origin
    dependency.WITH_MULTIMODAL = True
    monkeypatch.syspath_prepend(fake(tmp_path, '4.40.0', names))
    with patch.dict(sys.modules, {dependency.__name__: dependency}):
        for name in [name for name in sys.modules if name.partition('.')[0] == 'transformers']:
            del sys.modules[name]
        complete_imported()
    assert dependency.WITH_MULTIMODAL is bool(names)


def test_installed_transformers():
    if find_spec('transformers') is None:
        pytest.skip('transformers is not installed; `make test-extras` installs it')
    code = IMPORTS.format(hosts='mmpretrain.models, mmdet.models, mmseg.models')
    output = python('-c', code).stdout
    assert ' MobileOne' in output
    if int(version('transformers').partition('.')[0]) >= 5:
        assert 'False MobileOne' in output
