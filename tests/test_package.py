"""The package as a user meets it: a lean import, and a wheel that carries its configs and tools."""

import zipfile

import pytest

import mobileone_mm
from helpers import ROOT, python


def test_import_is_lean_and_costs_little_beyond_torch_and_mmengine():
    program = """
import sys, time, torch, mmengine, mmengine.registry
start = time.perf_counter()
import mobileone_mm
print(time.perf_counter() - start)
names = {m.split('.')[0] for m in sys.modules}
print(*names & {'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'cv2'})
"""
    for _ in range(2):  # a machine may be busy once
        seconds, *hosts = python('-c', program).stdout.split()
        assert not hosts
        if float(seconds) < 0.5:
            return
    pytest.fail(f'the import takes {seconds} s')


def test_public_names():
    assert set(mobileone_mm.__all__) <= set(dir(mobileone_mm))
    for name in mobileone_mm.__all__:
        assert getattr(mobileone_mm, name) is not None
    with pytest.raises(AttributeError, match='nothing'):
        mobileone_mm.nothing  # noqa: B018


def test_wheel_works_outside_the_repository(tmp_path):
    """The wheel is built from the sdist, so each file of it is in both."""
    python('-m', 'build', '--no-isolation', '--outdir', tmp_path / 'dist', ROOT)
    (wheel,) = (tmp_path / 'dist').glob('*.whl')
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    configs = {p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')}
    assert configs
    mim = {f'mobileone_mm/.mim/{name}' for name in configs | {'tools/train.py', 'model-index.yml'}}
    assert mim | {'mobileone_mm/robustness/wnids.txt'} <= set(names)
    assert any(name.endswith('licenses/LICENSE') for name in names)
    assert not any(n.startswith(('tests', 'configs', 'tools')) or '__pycache__' in n for n in names)
    target, elsewhere = tmp_path / 'site', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    python('-m', 'pip', 'install', '--quiet', '--no-deps', '--target', target, wheel)
    program = """
import sys, pathlib, mobileone_mm
package = pathlib.Path(mobileone_mm.__file__).parent
assert package.parent == pathlib.Path(sys.argv[1]), package
from mmengine.config import Config
config = Config.fromfile(package / '.mim/configs/ssdlite_mobileone_s2_coco.py')
from mmengine.registry import MODELS
model = MODELS.build(config.model.backbone)
print(type(model).__name__, config.model.backbone.arch)
"""
    environment = {'PYTHONPATH': str(target)}
    output = python('-c', program, target, cwd=elsewhere, env=environment).stdout
    assert output.endswith('MobileOne s2\n')


def test_editable_install_has_mim(tmp_path):
    """In the environment that `make setup` makes, the package is installed in editable mode."""
    mim = ROOT / 'mobileone_mm' / '.mim'
    if not mim.exists():
        pytest.skip('not an editable install (no mobileone_mm/.mim in the source tree)')
    for name in ('configs/mobileone_s0_in1k.py', 'tools/train.py', 'model-index.yml'):
        assert (mim / name).read_text() == (ROOT / name).read_text()
