"""Output that cannot be written, through the tool that converts: what was there stays."""

from __future__ import annotations

import errno
import os
import resource
import stat

import pytest
import torch


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

    opened = os.open

    def fails(path, *args, **kwargs):
        if str(path).endswith('.tmp'):
            raise OSError(number, os.strerror(number))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, 'open', fails)
    assert said in refused('switch_to_deploy', tmp_path / 'net.pth')


def test_predictions_do_not_take_the_place_of_the_weights(tool, config, state, tmp_path, capsys):
    net = tmp_path / 'net.pkl'
    torch.save(state, net)
    (tmp_path / 'link.pkl').symlink_to(net)
    before = net.read_bytes()
    for out in (net, tmp_path / 'link.pkl'):
        assert tool('test', config, net, '--out', out) == 2
        assert 'would overwrite an input' in capsys.readouterr().err
    assert net.read_bytes() == before
