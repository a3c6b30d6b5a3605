"""Broken and hostile files through the tools: one line, exit code 2, all files as they were.

The other tests of this folder show what the reader and the loader refuse; here are files that a tool
could touch on another way, and one of each kind of fault.
"""

import os
import zipfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from helpers import Pickled
from mobileone_mm.config.read import load_config
from mobileone_mm.inference.model import data_meta
from mobileone_mm.weights.reading import read_checkpoint
from mobileone_mm.weights.unwrap import read_weights

TOOLS = ('test', 'predict', 'switch_to_deploy')


def truncated(path: Path, state: dict) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-2000])


def code(path: Path, state: dict) -> None:
    evil = Pickled(os.system, f'touch {path.with_name("marker")}')
    torch.save({'state_dict': state, 'meta': evil}, path)


def nan(path: Path, state: dict) -> None:
    torch.save({**state, 'head.fc.bias': state['head.fc.bias'] * torch.nan}, path)


def another_form(path: Path, state: dict) -> None:
    """A unit of an impossible shape: the other form is computed from the file before it is compared."""
    key = 'backbone.stage1.0.branch_conv_list.0.conv.weight'
    torch.save({**state, key: state[key].reshape(-1)}, path)


FILES = {
    'truncated': (truncated, 'cut off, damaged'),
    'empty': (lambda path, state: path.touch(), 'is empty'),
    'a folder': (lambda path, state: path.mkdir(), 'is a folder'),
    'a pipe': (lambda path, state: os.mkfifo(path), 'no regular file'),
    'a device': (lambda path, state: path.symlink_to('/dev/zero'), 'no regular file'),
    'a link to nothing': (lambda path, state: path.symlink_to('gone.pth'), 'no such file'),
    'a link to itself': (lambda path, state: path.symlink_to(path), 'cannot be read'),
    'no file': (lambda path, state: None, 'no such file'),
    'code': (code, r'refers to code (posix.system)'),
    'NaN': (nan, 'NaN or Inf'),
    'another form': (another_form, 'fits the rest'),
}


@pytest.mark.parametrize('case', FILES)
def test_broken_files(refused, state, tmp_path, case):
    make, said = FILES[case]
    path = tmp_path / 'net.pth'
    make(path, state)
    options = ['model.backbone.deploy=True'] if case == 'another form' else []
    for name in TOOLS[: 2 if options else 3]:
        line = refused(name, path, options=options)
        assert said in line
        assert str(path) in line
    assert not (tmp_path / 'marker').exists()


def test_a_config_of_another_task(refused, net, tiny_config):
    other = tiny_config('det')
    for name in ('test', 'switch_to_deploy'):
        assert str(net) in refused(name, net, config=other)


def test_meta_that_is_none_is_not_used(run, state, config, tmp_path):
    infos = [
        {'classes': [None] * 1000, 'palette': ['x'] * 1000},
        {'classes': torch.ones(1000), 'palette': [[1, 2, 3], [1]] * 500},
        {'classes': ('a',) * 1000, 'palette': [[300, -1, 1]] * 1000},
        {'classes': ('\x1b[31m\n',) * 1000, 'palette': [[1, 2]] * 1000},
        3,
    ]
    for info in infos:
        assert data_meta(load_config(config), {'dataset_meta': info}).get('palette') is None
    for info in infos[-2:]:
        torch.save({'state_dict': state, 'meta': {'dataset_meta': info}}, tmp_path / 'net.pth')
        for name in TOOLS:
            assert run(name, tmp_path / 'net.pth') == 0


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


def test_a_file_that_disappears_while_it_is_read(run, net, monkeypatch):
    """It is opened once: the name may go, or another file may take it."""
    check = zipfile.ZipFile.testzip

    def gone(archive):
        net.unlink(missing_ok=True)
        net.write_text('another')
        return check(archive)

    monkeypatch.setattr(zipfile.ZipFile, 'testzip', gone)
    assert run('predict', net) == 0


@pytest.mark.parametrize(
    ('name', 'reader'),
    [('test', 'data.checks.checkpoint_classes'), ('switch_to_deploy', 'deploy.convert')],
)
def test_a_file_that_disappears_after_it_was_read(refused, net, monkeypatch, name, reader):
    def read(source, *args):
        content = read_weights(source, *args)
        net.unlink()
        return content

    monkeypatch.setattr(f'mobileone_mm.{reader}.read_weights', read)
    line = refused(name, net, gone=net)
    assert 'no such file' in line
    assert str(net) in line


def test_predictions_do_not_take_the_place_of_the_weights(tool, config, net, tmp_path, capsys):
    net = net.rename(tmp_path / 'net.pkl')
    (tmp_path / 'link.pkl').symlink_to(net)
    before = net.read_bytes()
    for out in (net, tmp_path / 'link.pkl'):
        assert tool('test', config, net, '--out', out) == 2
        assert 'would overwrite an input' in capsys.readouterr().err
    assert net.read_bytes() == before
