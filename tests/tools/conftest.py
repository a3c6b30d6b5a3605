"""What the tests of the tools share."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = 'randomness = dict(seed=1)\n'


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


@pytest.fixture
def torchrun():
    """Run a tool in two processes on the CPU, which must succeed."""

    def run(tool, *argv):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
        command += ['--master_addr=127.0.0.1', f'--master_port={port}']
        command += [ROOT / 'tools' / f'{tool}.py', *argv, '--launcher', 'pytorch']
        environment = {k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'}
        result = subprocess.run(
            [str(word) for word in command],
            env={**environment, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result

    return run
