"""What the tests of the weights share."""

import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers import randomize_
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy.config import build_model
from mobileone_mm.errors import InputError
from mobileone_mm.weights.reading import read_checkpoint

REPORT = '{"written": {"config_sha256": ""}}'  # of an earlier conversion
EARLIER = {'out.pth': 'earlier', 'out.py': 'earlier', 'out.json': REPORT}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """1 GiB more than the process has; what is asked for here is a thousand times as much."""
    if not Path('/proc/self/statm').exists():
        pytest.skip('needs /proc')
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def refused_file():
    """The one line about a file that cannot be read, which names it."""

    def call(path: Path, match: str | None = None) -> str:
        with pytest.raises(InputError, match=match) as caught:
            read_checkpoint(path)
        message = str(caught.value)
        assert message.isprintable()
        assert str(path) in message
        assert len(message.replace(str(path), '')) < 400
        return message

    return call


@pytest.fixture
def config(tiny_config) -> Path:
    return tiny_config('cls')


@pytest.fixture
def state(config) -> dict[str, torch.Tensor]:
    model = randomize_(build_model(load_config(config)), seed=3)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture
def net(state, tmp_path) -> Path:
    """A sound file."""
    torch.save(state, tmp_path / 'net.pth')
    return tmp_path / 'net.pth'


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The lines that the loader logs."""
    lines: list[str] = []
    for module in ('fit', 'unwrap', 'mmengine_loader'):
        name = f'mobileone_mm.weights.{module}.print_log'
        monkeypatch.setattr(name, lambda text, *_: lines.append(text))
    return lines


def contents(folder: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in folder.rglob('*'):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file() and '__pycache__' not in path.parts:
            found[str(path)] = path.read_bytes()
        elif path.name != '__pycache__':
            found[str(path)] = 'no file'
    return found


@pytest.fixture
def run(tool, config, tiny_imagenet, tmp_path, monkeypatch):
    """Run a tool on a checkpoint; earlier output is in the folder ``results``."""
    monkeypatch.chdir(tmp_path)
    # As in run_tool: loggers of fixtures keep a stream that pytest has closed.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    image = next(tiny_imagenet.rglob('*.JPEG'))
    (tmp_path / 'results').mkdir()
    for name, text in EARLIER.items():
        (tmp_path / 'results' / name).write_text(text)

    def call(name, checkpoint, options=(), config=config):
        output = {
            'test': ('--work-dir', 'results/work'),
            'predict': (image, '--out-dir', 'results/predicted'),
            'switch_to_deploy': ('results/out.pth',),
        }[name]
        extra = ('--cfg-options', *options) if options else ()
        return tool(name, config, checkpoint, *output, *extra)

    return call


@pytest.fixture
def refused(run, tmp_path, capsys):
    """The one line of a tool that must refuse and leave everything as it was.

    ``gone`` is a file that the test itself takes away meanwhile.
    """

    def call(*args, gone=None, **kwargs):
        capsys.readouterr()
        before = contents(tmp_path)
        before.pop(str(gone), None)
        assert run(*args, **kwargs) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith('error: ')
        assert lines[0].isprintable()
        assert len(lines[0]) < 600
        assert contents(tmp_path) == before
        return lines[0]

    return call
