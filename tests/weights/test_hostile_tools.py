"""Broken and hostile files through the tools: one line, exit code 2, all files as they were."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import resource
import stat
import zipfile
from pathlib import Path

import pytest
import torch

from mobileone_mm.deploy.config import build_model, load_config
from mobileone_mm.reparam.proof import randomize_

TOOLS = ('test', 'predict', 'switch_to_deploy')
EARLIER = {name: f'earlier {name}' for name in ('out.pth', 'out.py', 'out.json')}


class Bomb:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture
def config(tiny_config) -> Path:
    return tiny_config('cls')


@pytest.fixture
def state(config) -> dict[str, torch.Tensor]:
    model = randomize_(build_model(load_config(config)), seed=3)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture
def picture(tiny_imagenet) -> Path:
    return next(tiny_imagenet.rglob('*.JPEG'))


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
def run(tool, config, picture, tmp_path, monkeypatch):
    """Runs a tool on a checkpoint; earlier output stands in the folder ``results``."""
    monkeypatch.chdir(tmp_path)
    # As in run_tool: loggers of fixtures keep a stream that pytest has closed.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    (tmp_path / 'results').mkdir()
    for name, text in EARLIER.items():
        (tmp_path / 'results' / name).write_text(text)

    def call(name, checkpoint, out='results/out.pth', options=()):
        output = {
            'test': ('--work-dir', 'results/work'),
            'predict': (picture, '--out-dir', 'results/predicted'),
            'switch_to_deploy': (out,),
        }[name]
        extra = ('--cfg-options', *options) if options else ()
        return tool(name, config, checkpoint, *output, *extra)

    return call


@pytest.fixture
def refused(run, tmp_path, capsys):
    """The one line of a tool that must refuse and leave everything as it was."""

    def call(*args, **kwargs):
        capsys.readouterr()
        before = contents(tmp_path)
        assert run(*args, **kwargs) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith('error: ')
        assert lines[0].isprintable()
        assert len(lines[0]) < 600
        assert contents(tmp_path) == before
        return lines[0]

    return call


@pytest.mark.parametrize('name', TOOLS)
def test_a_sound_file_passes(run, state, tmp_path, name):
    torch.save(state, tmp_path / 'net.pth')
    assert run(name, tmp_path / 'net.pth') == 0


# -- files -----------------------------------------------------------------------------------------


def zip_bomb(path: Path, state: dict) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('net/data/bomb', bytes(3_000_000))


def safetensors(path: Path, change) -> None:
    from safetensors.torch import save

    data = save({'head.fc.bias': torch.ones(3), 'head.fc.weight': torch.ones(3)})
    length = int.from_bytes(data[:8], 'little')
    header = change(data[8 : 8 + length])
    path.write_bytes(len(header).to_bytes(8, 'little') + header + data[8 + length :])


def cut(path: Path, state: dict) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-2000])


def evil(path: Path, state: dict, legacy: bool) -> None:
    marker = path.with_name('marker')
    content = {'state_dict': state, 'meta': Bomb(os.system, f'touch {marker}')}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


FILES = {
    'truncated': (cut, 'cut off, damaged'),
    'empty': (lambda path, state: path.touch(), 'is empty'),
    'text': (lambda path, state: path.write_text('no weights'), 'is no checkpoint'),
    'a folder': (lambda path, state: path.mkdir(), 'is a folder'),
    'a pipe': (lambda path, state: os.mkfifo(path), 'no regular file'),
    'a device': (lambda path, state: path.symlink_to('/dev/zero'), 'no regular file'),
    'a link to nothing': (lambda path, state: path.symlink_to('gone.pth'), 'no such file'),
    'a link to itself': (lambda path, state: path.symlink_to(path), 'cannot be read'),
    'no file': (lambda path, state: None, 'no such file'),
    'code': (lambda path, state: evil(path, state, False), r'refers to code (posix.system)'),
    'code, old format': (lambda path, state: evil(path, state, True), r'refers to code (posix.system)'),
    'code, plain': (
        lambda path, state: path.write_bytes(pickle.dumps(Bomb(exec, 'open("marker", "w")'), 2)),
        'refers to code (builtins.exec)',
    ),
    'zip bomb': (zip_bomb, 'declares more data than it has'),
    'key twice': (
        lambda path, state: safetensors(path, lambda h: h.replace(b'fc.bias', b'fc.weight')),
        "holds the key 'head.fc.weight' twice",
    ),
    'header': (lambda path, state: safetensors(path, lambda h: h[:-9]), 'cut off, damaged'),
}  # fmt: skip


@pytest.mark.parametrize('case', FILES)
def test_broken_files(refused, state, tmp_path, case):
    make, said = FILES[case]
    path = tmp_path / ('net.safetensors' if case in ('key twice', 'header') else 'net.pth')
    make(path, state)
    for name in TOOLS:
        line = refused(name, path)
        assert said in line
        assert str(path) in line
    assert not (tmp_path / 'marker').exists()


# -- weights ---------------------------------------------------------------------------------------


def edited(part: str, change):
    def edit(state: dict) -> dict:
        key = next(key for key in state if part in key)
        return {**state, key: change(state[key])}

    return edit


def first(value: float):
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


def wider(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.repeat(2, *[1] * (tensor.ndim - 1)) if tensor.ndim else tensor


WEIGHTS = {
    'NaN': (edited('stage2', first(float('nan'))), 'NaN or Inf'),
    'Inf': (edited('fc.bias', first(float('inf'))), 'NaN or Inf'),
    'too large': (edited('fc.bias', lambda t: t.double() + 1e300), 'beyond the range of torch.float32'),
    'variance': (edited('running_var', first(-1.0)), 'negative variance'),
    'integers': (edited('conv.weight', lambda t: t.int()), 'holds torch.int32 where'),
    'complex': (edited('conv.weight', lambda t: t.to(torch.complex64)), 'holds torch.complex64 where'),
    'complex counter': (edited('num_batches', lambda t: t.to(torch.complex64)), 'torch.complex64'),
    'NaN counter': (edited('num_batches', lambda t: t.float() * float('nan')), 'NaN or Inf'),
    'quantised': (
        edited('fc.weight', lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        'quantised tensors',
    ),
    'sparse': (edited('fc.weight', lambda t: t.to_sparse()), 'sparse tensors'),
    'without data': (edited('fc.weight', lambda t: t.to('meta')), 'tensors without data'),
    'another shape': (edited('fc.weight', lambda t: t[:-1]), 'another number of classes'),
    'another size': (
        lambda s: {k: wider(v) if 'stage2' in k else v for k, v in s.items()},
        'is of another size',
    ),
    'another architecture': (
        lambda s: torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).state_dict(),
        'holds no MobileOne',
    ),
    'a part': (lambda s: {k: v for k, v in s.items() if 'head' not in k}, 'lacks 2 keys'),
    'more': (lambda s: {**s, 'neck.weight': torch.ones(1)}, 'that the model has not (neck.weight)'),
    'a name with a line break': (lambda s: {**s, 'a\nb': torch.ones(1)}, 'no name of a layer'),
    'nothing': (lambda s: {}, 'holds no weights'),
}  # fmt: skip


@pytest.mark.parametrize('case', WEIGHTS)
@pytest.mark.filterwarnings('ignore:.*quantiz')
def test_weights_that_cannot_be(refused, state, tmp_path, case):
    edit, said = WEIGHTS[case]
    torch.save({'state_dict': edit(state), 'meta': {}}, tmp_path / 'net.pth')
    left_out = list(WEIGHTS).index(case) % len(TOOLS)  # two of the three, to be quick
    for name in (*TOOLS[:left_out], *TOOLS[left_out + 1 :]):
        line = refused(name, tmp_path / 'net.pth')
        assert said in line
        assert str(tmp_path / 'net.pth') in line


def test_units_of_impossible_shapes_are_not_fused_or_lifted(refused, state, tmp_path):
    """The other form is computed from the file before anything can be compared with the model."""
    from mobileone_mm.weights.forms import fuse_state

    fused = fuse_state(state)
    parts = [
        (state, 'conv.weight', lambda t: t.reshape(-1), ['model.backbone.deploy=True']),
        (state, 'norm.weight', lambda t: t[:1], ['model.backbone.deploy=True']),
        (state, 'running_var', first(-1.0), ['model.backbone.deploy=True']),
        (fused, 'reparam.weight', lambda t: t.reshape(-1), []),
        (fused, 'reparam.weight', lambda t: t.int(), []),
        (fused, 'reparam.bias', lambda t: t[:1], []),
    ]
    for source, part, change, options in parts:
        torch.save(edited(part, change)(source), tmp_path / 'net.pth')
        for name in TOOLS[:2]:
            assert str(tmp_path / 'net.pth') in refused(name, tmp_path / 'net.pth', options=options)
    del fused[next(key for key in fused if key.endswith('reparam.weight'))]
    torch.save(fused, tmp_path / 'net.pth')
    for name in TOOLS[:2]:
        refused(name, tmp_path / 'net.pth')


def test_a_config_of_another_task(run, tool, state, tiny_config, tmp_path, capsys):
    torch.save(state, tmp_path / 'net.pth')
    for task in ('det', 'seg'):
        before = contents(tmp_path)
        config = tiny_config(task)
        assert tool('switch_to_deploy', config, tmp_path / 'net.pth', 'results/out.pth') == 2
        assert str(tmp_path / 'net.pth') in capsys.readouterr().err
        config.unlink()
        assert contents(tmp_path) == before


# -- what happens in between -----------------------------------------------------------------------


def test_a_file_that_disappears_while_it_is_read(run, state, tmp_path, monkeypatch):
    """It is opened once: the name may go, or another file may take it."""
    path = tmp_path / 'net.pth'
    torch.save(state, path)
    check = zipfile.ZipFile.testzip

    def gone(archive):
        path.write_bytes(b'') if path.exists() and path.stat().st_nlink > 1 else None
        path.unlink(missing_ok=True)
        path.write_text('another')
        return check(archive)

    monkeypatch.setattr(zipfile.ZipFile, 'testzip', gone)
    assert run('predict', path) == 0


@pytest.mark.parametrize(
    ('name', 'module'),
    [('test', 'mobileone_mm.apis.runner'), ('switch_to_deploy', 'mobileone_mm.deploy.convert')],
)
def test_a_file_that_disappears_after_it_was_read(
    refused, state, tmp_path, monkeypatch, name, module
):
    from mobileone_mm.weights.reading import read_checkpoint

    path, kept = tmp_path / 'net.pth', tmp_path / 'kept'
    torch.save(state, path)
    os.link(path, kept)

    def read(source, *args):
        content = read_checkpoint(source, *args)
        path.rename(tmp_path.parent / f'{tmp_path.name}.gone')
        return content

    before = contents(tmp_path)
    del before[str(path)]
    monkeypatch.setattr(f'{module}.read_checkpoint', read)
    with pytest.raises(AssertionError):  # the one difference is the file that we took away
        refused(name, path)
    assert contents(tmp_path) == before


def test_no_permission_to_read(refused, state, tmp_path, monkeypatch):
    torch.save(state, tmp_path / 'net.pth')
    opened = os.open

    def denied(path, *args, **kwargs):
        if str(path).endswith('net.pth'):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, 'open', denied)
    for name in TOOLS:
        assert 'cannot be read (Permission denied)' in refused(name, tmp_path / 'net.pth')


# -- output ----------------------------------------------------------------------------------------


def test_output_that_cannot_be(refused, state, tmp_path):
    net, results = tmp_path / 'net.pth', tmp_path / 'results'
    torch.save(state, net)
    (results / 'link.pth').symlink_to(net)
    os.link(net, results / 'same.pth')
    (results / 'folder.pth').mkdir()
    (results / 'loop.pth').symlink_to(results / 'loop.pth')
    (results / 'protected.pth').touch(mode=0o444)
    os.mkfifo(results / 'pipe.pth')
    for out, said in {
        str(net): 'would overwrite the input',
        'results/link.pth': 'would overwrite the input',
        'results/same.pth': 'would overwrite the input',
        'results/folder.pth': 'is a folder',
        'results/loop.pth': 'symbolic link',
        'results/pipe.pth': 'no regular file',
        'results/protected.pth': 'write-protected',
        'net.pth/below.pth': 'a part of the path is a file',
        f'results/{"x" * 300}.pth': 'too long',
    }.items():
        assert said in refused('switch_to_deploy', net, out=out), out


@pytest.mark.skipif(not hasattr(os, 'mknod') or os.geteuid() != 0, reason='only root makes devices')
def test_a_device_is_not_replaced(refused, state, tmp_path):
    torch.save(state, tmp_path / 'net.pth')
    try:
        os.mknod(tmp_path / 'null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip('no devices can be made here')
    (tmp_path / 'results' / 'null.pth').symlink_to(tmp_path / 'null')
    assert 'no regular file' in refused(
        'switch_to_deploy', tmp_path / 'net.pth', out='results/null.pth'
    )
    assert stat.S_ISCHR((tmp_path / 'null').stat().st_mode)


def test_a_link_is_followed_and_stays(run, state, tmp_path):
    torch.save(state, tmp_path / 'net.pth')
    (tmp_path / 'real.pth').write_text('earlier')
    (tmp_path / 'results' / 'link.pth').symlink_to('../real.pth')
    assert run('switch_to_deploy', tmp_path / 'net.pth', out='results/link.pth') == 0
    assert (tmp_path / 'results' / 'link.pth').is_symlink()
    assert torch.load(tmp_path / 'real.pth', weights_only=True).keys() == {'meta', 'state_dict'}


@pytest.mark.parametrize('fresh', [False, True])
def test_a_disk_that_is_full_in_the_middle_of_the_file(refused, state, tmp_path, fresh):
    """Writing fails indeed, by a limit on the size of files; also new folders are taken back."""
    torch.save(state, tmp_path / 'net.pth')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        out = 'new/folder/out.pth' if fresh else 'results/out.pth'
        line = refused('switch_to_deploy', tmp_path / 'net.pth', out=out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 'cannot write' in line


@pytest.mark.parametrize(
    ('number', 'said'),
    [
        (errno.EACCES, 'no permission'),
        (errno.EROFS, 'read-only'),
        (errno.ENOSPC, 'the disk is full'),
    ],
)
def test_a_folder_that_takes_no_files(refused, state, tmp_path, monkeypatch, number, said):
    torch.save(state, tmp_path / 'net.pth')

    def fails(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('mobileone_mm.weights.writing.tempfile.mkstemp', fails)
    assert said in refused('switch_to_deploy', tmp_path / 'net.pth')
