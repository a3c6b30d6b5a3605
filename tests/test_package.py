"""The package as a user meets it: a lean import, and a wheel that carries its configs and tools."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mobileone_mm

ROOT = Path(__file__).resolve().parents[1]


def python(program, *args, **kwargs):
    result = subprocess.run(
        [sys.executable, '-c', program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **kwargs,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_import_is_lean_and_costs_little_beyond_torch_and_mmengine():
    program = (
        'import sys, time, torch, mmengine, mmengine.registry\n'
        'start = time.perf_counter()\n'
        'import mobileone_mm\n'
        'seconds = time.perf_counter() - start\n'
        "names = {m.split('.')[0] for m in sys.modules}\n"
        "print(sorted(names & {'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'cv2'}))\n"
        "print('mmcv._ext' in sys.modules, seconds)"
    )
    for _ in range(2):  # a machine may be busy once
        hosts, last = python(program).split('\n')[:2]
        assert (hosts, last.split()[0]) == ('[]', 'False')
        if float(last.split()[1]) < 0.5:
            return
    pytest.fail(f'the import takes {last.split()[1]} s')


def test_public_names():
    assert set(mobileone_mm.__all__) <= set(dir(mobileone_mm))
    for name in mobileone_mm.__all__:
        assert getattr(mobileone_mm, name) is not None
    with pytest.raises(AttributeError, match='nothing'):
        mobileone_mm.nothing  # noqa: B018


@pytest.fixture(scope='module')
def archives(tmp_path_factory):
    """A wheel and an sdist, built from a copy of the files that the sources consist of."""
    folder = tmp_path_factory.mktemp('dist')
    build = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, ROOT]
    result = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return next(folder.glob('*.whl')), next(folder.glob('*.tar.gz'))


def test_wheel_works_outside_the_repository(archives, tmp_path):
    wheel, _ = archives
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    tracked = [p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')]
    assert tracked
    assert {f'mobileone_mm/.mim/{name}' for name in tracked} <= set(names)
    assert 'mobileone_mm/.mim/tools/train.py' in names
    assert 'mobileone_mm/robustness/wnids.txt' in names
    assert 'mobileone_mm/.mim/model-index.yml' in names
    assert not any(n.startswith(('tests', 'configs', 'tools')) or '__pycache__' in n for n in names)
    target, elsewhere = tmp_path / 'site', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    install = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', target, wheel]
    subprocess.run([sys.executable, *install], check=True, timeout=300)
    program = (
        'import sys, pathlib, mobileone_mm\n'
        'package = pathlib.Path(mobileone_mm.__file__).parent\n'
        'assert package.parent == pathlib.Path(sys.argv[1]), package\n'
        'from mmengine.config import Config\n'
        "config = Config.fromfile(package / '.mim/configs/ssdlite_mobileone_s2_coco.py')\n"
        'from mmengine.registry import MODELS\n'
        'model = MODELS.build(config.model.backbone)\n'
        'print(type(model).__name__, config.model.backbone.arch)'
    )
    environment = {**os.environ, 'PYTHONPATH': str(target)}
    assert python(program, target, cwd=elsewhere, env=environment).endswith('MobileOne s2\n')


def test_sdist_is_complete(archives):
    import tarfile

    with tarfile.open(archives[1]) as file:
        names = {name.partition('/')[2] for name in file.getnames()}
    assert {
        'setup.py',
        'LICENSE',
        'model-index.yml',
        'configs/mobileone_s0_in1k.py',
        'tools/train.py',
    } <= names


def test_editable_install_has_mim(tmp_path):
    """In the environment that `make setup` makes, the package is installed in editable mode."""
    mim = ROOT / 'mobileone_mm' / '.mim'
    if not mim.exists():
        pytest.skip('not an editable install (no mobileone_mm/.mim in the source tree)')
    assert (mim / 'configs' / 'mobileone_s0_in1k.py').read_text() == (
        ROOT / 'configs' / 'mobileone_s0_in1k.py'
    ).read_text()
    assert (mim / 'tools' / 'train.py').exists()
    assert (mim / 'model-index.yml').exists()
