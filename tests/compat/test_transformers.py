"""The hosts import beside any release of transformers; only multimodal models may be missing."""

import mobileone_mm  # noqa: F401  isort: skip

import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from mobileone_mm.compat import complete_imported

pytest.importorskip('mmpretrain')

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
    package = folder / 'transformers'
    for name, text in {
        '__init__': '',
        'activations': 'ACT2FN = {}\n',
        'modeling_outputs': '__getattr__ = lambda name: object\n',
        'modeling_utils': f'class PreTrainedModel: pass\n{names}',
        'pytorch_utils': names,
        'models/__init__': '',
        'models/bert/__init__': '',
        'models/bert/configuration_bert': 'class BertConfig: pass\n',
    }.items():
        file = package / f'{name}.py'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    info = folder / f'transformers-{number}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: transformers\nVersion: {number}\n'
    )
    return folder


def test_without_the_names_that_blip_imports(tmp_path: Path, python):
    code = IMPORTS.format(hosts='mmpretrain.models')
    found = python('-c', code, path=[fake(tmp_path, '5.0.0', '')])
    assert 'False MobileOne' in found.stdout
    assert 'multi-modal' in found.stdout


@pytest.mark.parametrize('names', ['', NAMES])
def test_what_is_imported_already_is_completed(tmp_path: Path, names: str, monkeypatch):
    """Multimodal models stay where transformers has all names."""
    dependency = ModuleType('mmpretrain.utils.dependency')
    dependency.__file__ = find_spec('mmpretrain.utils.dependency').origin
    dependency.WITH_MULTIMODAL = True
    monkeypatch.setitem(sys.modules, dependency.__name__, dependency)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'transformers']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(fake(tmp_path, '4.40.0', names))
    complete_imported()
    for name in [name for name in sys.modules if name.partition('.')[0] == 'transformers']:
        monkeypatch.delitem(sys.modules, name)
    assert dependency.WITH_MULTIMODAL is bool(names)


def test_installed_transformers(python):
    try:
        major = int(version('transformers').partition('.')[0])
    except PackageNotFoundError:
        pytest.skip('transformers is not installed; `make test-extras` installs it')
    output = python(
        '-c', IMPORTS.format(hosts='mmpretrain.models, mmdet.models, mmseg.models')
    ).stdout
    assert ' MobileOne' in output
    if major >= 5:
        assert 'False MobileOne' in output
