"""Broken and hostile files through the tools: one line, exit code 2, all files as they were."""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mobileone_mm.weights.reading import read_checkpoint
from mobileone_mm.weights.unwrap import read_weights

TOOLS = ('test', 'predict', 'switch_to_deploy')


class Bomb:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


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
        'exec) that weights do not need',  # older torch names its module, too
    ),
    'zip bomb': (zip_bomb, 'declares more data than it has'),
    'header': (lambda path, state: safetensors(path, lambda h: h[:-9]), 'cut off, damaged'),
}  # fmt: skip


@pytest.mark.parametrize('case', FILES)
def test_broken_files(refused, state, tmp_path, case):
    make, said = FILES[case]
    path = tmp_path / ('net.safetensors' if case == 'header' else 'net.pth')
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
        'no model here can take',
    ),
    'sparse': (edited('fc.weight', lambda t: t.to_sparse()), 'no model here can take'),
    'without data': (edited('fc.weight', lambda t: t.to('meta')), 'no model here can take'),
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
    'more': (lambda s: {**s, 'neck.weight': torch.ones(1)}, 'that the model lacks (neck.weight)'),
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


def test_a_config_of_another_task(refused, state, tiny_config, tmp_path):
    torch.save(state, tmp_path / 'net.pth')
    for task in ('det', 'seg'):
        other = tiny_config(task)
        for name in TOOLS:
            assert str(tmp_path / 'net.pth') in refused(name, tmp_path / 'net.pth', config=other)


@pytest.mark.parametrize(
    'info',
    [
        3,
        {'classes': [None] * 1000, 'palette': ['x'] * 1000},
        {'classes': ('\x1b[31m\n',) * 1000, 'palette': [[1, 2]] * 1000},
        {'classes': torch.ones(1000), 'palette': [[1, 2, 3], [1]] * 500},
        {'classes': ('a',) * 1000, 'palette': [[300, -1, 1]] * 1000},
    ],
)
def test_meta_that_is_none_is_not_used(run, state, tmp_path, info):
    torch.save({'state_dict': state, 'meta': {'dataset_meta': info}}, tmp_path / 'net.pth')
    assert run('predict', tmp_path / 'net.pth') == 0
    assert run('switch_to_deploy', tmp_path / 'net.pth') == 0


def test_a_config_inside_a_checkpoint_does_not_run(tool, config, tmp_path, monkeypatch):
    """mmengine's resume reads meta['config'] as a config file, which is a program."""
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / 'marker'
    train = ('train', config, '--no-validate', '--work-dir', tmp_path / 'run')
    assert tool(*train) == 0
    content = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')
    content['meta']['config'] = f'open({str(marker)!r}, "w").close()'
    torch.save(content, tmp_path / 'evil.pth')
    more = ('--cfg-options', 'train_cfg.max_epochs=2')
    assert tool(*train, '--resume', tmp_path / 'evil.pth', *more) == 0
    assert (tmp_path / 'run' / 'epoch_2.pth').exists()
    assert not marker.exists()
    Config.fromstring(content['meta']['config'], file_format='.py')  # what mmengine does
    assert marker.exists()
    for key, value in dict(epoch='x', iter=-1, seed=[1]).items():
        damaged = {**content, 'meta': {**content['meta'], key: value}}
        torch.save(damaged, tmp_path / 'damaged.pth')
        assert tool(*train, '--resume', tmp_path / 'damaged.pth', *more) == 2


# -- what happens in between -----------------------------------------------------------------------


def test_a_file_that_disappears_while_it_is_read(run, state, tmp_path, monkeypatch):
    """It is opened once: the name may go, or another file may take it."""
    path = tmp_path / 'net.pth'
    torch.save(state, path)
    check = zipfile.ZipFile.testzip

    def gone(archive):
        path.unlink(missing_ok=True)
        path.write_text('another')
        return check(archive)

    monkeypatch.setattr(zipfile.ZipFile, 'testzip', gone)
    assert run('predict', path) == 0


@pytest.mark.parametrize(
    ('name', 'reader'),
    [
        ('test', 'mobileone_mm.runs.prepare.read_weights'),
        ('switch_to_deploy', 'mobileone_mm.deploy.convert.read_weights'),
    ],
)
def test_a_file_that_disappears_after_it_was_read(
    refused, state, tmp_path, monkeypatch, name, reader
):
    path = tmp_path / 'net.pth'
    torch.save(state, path)

    def read(source, *args):
        content = read_weights(source, *args)
        path.unlink()
        return content

    monkeypatch.setattr(reader, read)
    line = refused(name, path, gone=path)
    assert 'no such file' in line
    assert str(path) in line


def test_no_permission_to_read(refused, state, tmp_path, monkeypatch):
    torch.save(state, tmp_path / 'net.pth')
    opened = Path.open

    def denied(path, *args, **kwargs):
        if path.name == 'net.pth':
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, 'open', denied)
    for name in TOOLS:
        assert 'cannot be read (Permission denied)' in refused(name, tmp_path / 'net.pth')
