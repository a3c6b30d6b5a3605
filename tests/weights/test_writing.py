"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from mobileone_mm.errors import InputError
from mobileone_mm.weights.writing import atomic_save, atomic_text, atomic_write, atomic_write_all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def disk_full(file) -> None:
    file.write(b'half of it')
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_text_and_object_arrive(tmp_path):
    atomic_text(tmp_path / 'new' / 'a.txt', 'Größe')
    atomic_save({'x': torch.arange(3)}, tmp_path / 'b.pth')
    assert (tmp_path / 'new' / 'a.txt').read_text(encoding='utf-8') == 'Größe'
    assert torch.equal(torch.load(tmp_path / 'b.pth')['x'], torch.arange(3))
    assert names(tmp_path) == ['b.pth', 'new']


def test_permissions_follow_the_umask_or_the_old_file(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_text(tmp_path / 'a', 'x')
    finally:
        os.umask(before)
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o640
    (tmp_path / 'a').chmod(0o604)
    atomic_text(tmp_path / 'a', 'y')
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o604


def test_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / 'a.pth'
    target.write_text('old')
    with pytest.raises(InputError, match=r"cannot write '.*a\.pth': the disk is full"):
        atomic_write(target, disk_full)
    assert target.read_text() == 'old'
    assert names(tmp_path) == ['a.pth']


def test_full_disk_while_saving_weights(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, 'No space left on device')

    atomic_save({'x': torch.zeros(10)}, tmp_path / 'a.pth')
    before = (tmp_path / 'a.pth').read_bytes()
    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(InputError, match='the disk is full'):
        atomic_save({'x': torch.ones(10)}, tmp_path / 'a.pth')
    assert names(tmp_path) == ['a.pth']
    assert (tmp_path / 'a.pth').read_bytes() == before


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted(file) -> None:
        file.write(b'x')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / 'a', interrupted)
    assert names(tmp_path) == []


def test_a_symbolic_link_stays_a_link(tmp_path):
    (tmp_path / 'real').write_text('old')
    (tmp_path / 'link').symlink_to('real')
    atomic_text(tmp_path / 'link', 'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'real').read_text() == 'new'


@pytest.mark.parametrize('kind', ['folder', 'below a file'])
def test_impossible_targets(tmp_path, kind):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('x')
    target = tmp_path / ('folder' if kind == 'folder' else 'file/new')
    with pytest.raises(InputError, match='folder') as caught:
        atomic_text(target, 'x')
    assert '\n' not in str(caught.value)
    assert names(tmp_path) == ['file', 'folder']


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match='no permission'):
            atomic_text(tmp_path / 'a', 'x')
    finally:
        tmp_path.chmod(0o700)


def put(text: str):
    return lambda file: file.write(text.encode())


def test_several_files_or_none_when_the_last_cannot_be_written(tmp_path):
    (tmp_path / 'a').write_text('old')
    with pytest.raises(InputError, match='the disk is full'):
        atomic_write_all({tmp_path / 'a': put('new'), tmp_path / 'b': disk_full})
    assert names(tmp_path) == ['a']
    assert (tmp_path / 'a').read_text() == 'old'


def test_several_files_or_none_when_a_renaming_fails(tmp_path, monkeypatch):
    (tmp_path / 'a').write_text('old')
    replace = os.replace

    def fails_at_c(source, target):
        if str(target).endswith('c'):
            raise OSError(errno.EIO, 'Input/output error', str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fails_at_c)
    files = {tmp_path / name: put('new') for name in 'abc'}
    with pytest.raises(InputError, match=r"cannot write '.*c': Input/output error"):
        atomic_write_all(files)
    assert names(tmp_path) == ['a']
    assert (tmp_path / 'a').read_text() == 'old'
    monkeypatch.undo()
    atomic_write_all(files)
    assert names(tmp_path) == ['a', 'b', 'c']
    assert (tmp_path / 'a').read_text() == 'new'
