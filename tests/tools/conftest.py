"""What the tests of the tools share."""

from __future__ import annotations

import pytest


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
