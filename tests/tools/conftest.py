"""A tool that must refuse what it is given."""

from __future__ import annotations

import pytest


@pytest.fixture
def refused(tool, capsys, tmp_path, monkeypatch):
    """Runs a tool that must refuse, and returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capsys.readouterr()
        assert tool(*argv) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith('error: ')
        assert not list(tmp_path.rglob('*.pth.*')), 'a temporary file was left'
        return lines[0]

    return run
