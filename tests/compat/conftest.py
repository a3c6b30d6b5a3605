"""Run code in a fresh interpreter, because the first import happens once per process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope='session')
def python() -> Run:
    """``python(*args, path=(), cwd=None, env=None, fails=False)``: run, check and hand back."""

    def run(*args: str, path=(), cwd=None, env=None, fails=False):
        entries = [*map(str, path), str(ROOT)]
        result = subprocess.run(
            [sys.executable, *map(str, args)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=500,
            check=False,
            env={
                **os.environ,
                'PYTHONPATH': os.pathsep.join(entries),
                'OMP_NUM_THREADS': '1',
                **(env or {}),
            },
        )
        assert (result.returncode != 0) == fails, result.stdout + result.stderr
        return result

    return run
