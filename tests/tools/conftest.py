"""What the tests of the tools share."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

VARIABLES = {'cls': 'IMAGENET_ROOT', 'det': 'COCO_ROOT', 'seg': 'VOC_ROOT'}
SEED = 'randomness = dict(seed=1)\n'


def train(config, *options):
    """Return the call of a training with these options."""
    return ('train', config, *(('--cfg-options', *options) if options else ()))


@pytest.fixture(scope='session')
def finished_runs() -> dict[str, Path]:
    """The work dirs of ``trained_run``, by task."""
    return {}


@pytest.fixture
def trained_run(tool, tiny_config, roots, tmp_path_factory, finished_runs) -> Callable[[str], Path]:
    """Train a task for one epoch, and return the work dir; all tests share it and only read it."""

    def run(task: str) -> Path:
        if task not in finished_runs:
            folder = tmp_path_factory.mktemp(task)
            flags = ['--tensorboard'] if find_spec('tensorboard') else []
            with pytest.MonkeyPatch.context() as place:
                place.chdir(folder)
                for name, root in roots.items():  # a test may have changed them
                    place.setenv(name, str(root))
                assert tool('train', tiny_config(task, SEED), *flags) == 0
            finished_runs[task] = folder / 'work_dirs' / task
        return finished_runs[task]

    return run


@pytest.fixture
def own_data(roots, tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Copy the tiny dataset of a task once, for a test that changes it, and return its root."""

    def copy(task: str) -> Path:
        root = tmp_path / 'data'
        if not root.exists():
            shutil.copytree(roots[VARIABLES[task]], root)
            monkeypatch.setenv(VARIABLES[task], str(root))
        return root

    return copy


@pytest.fixture
def refused(tool, capsys, tmp_path, monkeypatch):
    """Run a tool that must refuse and write nothing, and return its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*argv, got_somewhere=False):
        capsys.readouterr()
        before = set(tmp_path.rglob('*'))
        assert tool(*argv) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith('error: ')
        if not got_somewhere:
            left = {
                path for path in tmp_path.rglob('*') if '__pycache__' not in path.parts
            } - before
            assert not left
        return lines[0]

    return run
