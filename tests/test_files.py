"""Files are whole or not there."""

import errno
import os
import signal
import socket
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from mobileone_mm import files
from mobileone_mm.errors import InputError
from mobileone_mm.files import (
    atomic_text,
    atomic_write,
    atomic_write_all,
    disk_is_full,
    file_name,
    path_below,
    torch_bytes,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


no_space = Mock(side_effect=OSError(errno.ENOSPC, 'No space left on device'))


def test_permissions_follow_the_umask_or_the_old_file(tmp_path, monkeypatch):
    """The umask belongs to all threads: between two calls, others would write with mode 666."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, 'umask', Mock(side_effect=AssertionError('os.umask')))
            atomic_text(tmp_path / 'a', 'x')
    finally:
        os.umask(before)
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o640
    (tmp_path / 'a').chmod(0o604)
    atomic_text(tmp_path / 'a', 'y')
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o604


def test_mmengine_writes_whole_files(tmp_path):
    """Also where mmengine does the writing: checkpoints, and results as text."""
    backend = files.AtomicLocalBackend()
    backend.put(torch_bytes({'x': torch.arange(3)}), tmp_path / 'folder' / 'a')
    backend.put_text('Größe', tmp_path / 'b')
    assert torch.equal(torch.load(tmp_path / 'folder' / 'a')['x'], torch.arange(3))
    # A renaming would not ask; root may do everything, and is refused as well.
    (tmp_path / 'b').chmod(0o444)
    with pytest.raises(InputError, match='write-protected'):  # LocalBackend would try to write
        backend.put_text('x', tmp_path / 'b')
    assert names(tmp_path) == ['b', 'folder']
    assert (tmp_path / 'b').read_text(encoding='utf-8') == 'Größe'


@pytest.mark.parametrize(('code', 'said'), [('ENOSPC', 'the disk is full'), ('EROFS', 'read-only')])
def test_a_fault_at_the_end(tmp_path, monkeypatch, code, said):
    atomic_text(tmp_path / 'a', 'old')
    monkeypatch.setattr(os, 'fsync', Mock(side_effect=OSError(getattr(errno, code), code)))
    with pytest.raises(InputError, match=said):
        atomic_text(tmp_path / 'a', 'new')
    assert names(tmp_path) == ['a']
    assert (tmp_path / 'a').read_text() == 'old'


def test_an_interrupt_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / 'a', Mock(side_effect=KeyboardInterrupt))
    assert names(tmp_path) == []


@pytest.mark.parametrize('target', ['folder', 'file/new'])
def test_impossible_targets(tmp_path, target):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match='folder') as caught:
        atomic_text(tmp_path / target, 'x')
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


def test_several_files_or_none_when_the_last_cannot_be_written(tmp_path):
    (tmp_path / 'a').write_text('old')
    (tmp_path / 'old').mkdir()
    contents = {'a': b'new', 'old/new/a': b'x', 'old/other/b': no_space}
    with pytest.raises(InputError, match=r"cannot write '.*b': the disk is full"):
        atomic_write_all({tmp_path / name: content for name, content in contents.items()})
    assert names(tmp_path) == ['a', 'old']
    assert names(tmp_path / 'old') == []
    assert (tmp_path / 'a').read_text() == 'old'


def test_several_files_or_none_when_a_renaming_fails(tmp_path, monkeypatch):
    (tmp_path / 'a').write_text('old')
    replace = os.replace

    def fails_at_c(source, target):
        if str(target).endswith('c'):
            raise OSError(errno.EIO, 'Input/output error', str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fails_at_c)
    contents = {tmp_path / name: b'new' for name in 'abc'}
    with pytest.raises(InputError, match=r"cannot write '.*c': Input/output error"):
        atomic_write_all(contents)
    assert names(tmp_path) == ['a']
    assert (tmp_path / 'a').read_text() == 'old'
    monkeypatch.undo()
    atomic_write_all(contents)
    assert names(tmp_path) == ['a', 'b', 'c']
    assert (tmp_path / 'a').read_text() == 'new'


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(tmp_path, os.O_RDONLY)
        listener.bind(f'/proc/self/fd/{folder}/socket')  # a socket's path must be short
        os.close(folder)
        for name in ('pipe', 'socket'):
            (tmp_path / f'link to {name}').symlink_to(name)
            for target in (tmp_path / name, tmp_path / f'link to {name}'):
                before = target.stat()
                with pytest.raises(InputError, match='no regular file'):
                    atomic_text(target, 'x')
                assert target.stat().st_ino == before.st_ino
    assert names(tmp_path) == ['link to pipe', 'link to socket', 'pipe', 'socket']


def test_symbolic_links(tmp_path):
    for name, target in (('link', 'real'), ('dangling', 'new/file')):
        (tmp_path / name).symlink_to(target)
        for text in ('old', 'Größe'):
            atomic_text(tmp_path / name, text)
            assert (tmp_path / name).is_symlink()
            assert (tmp_path / target).read_text(encoding='utf-8') == text
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(InputError, match='leads to itself'):
        atomic_text(tmp_path / 'loop', 'x')
    assert (tmp_path / 'loop').is_symlink()


def test_names(tmp_path):
    longest = 'ü' * 127  # 254 bytes; most file systems take 255
    atomic_text(tmp_path / longest, 'x')
    assert names(tmp_path) == [longest]
    for name, said in ((longest + 'ü', 'too long'), ('nul\0l', 'null character')):
        with pytest.raises(InputError, match=said) as caught:
            atomic_text(tmp_path / name, 'x')
        assert 'cannot write' in str(caught.value)
    assert names(tmp_path) == [longest]


def test_a_second_name_that_does_not_fit(tmp_path, monkeypatch):
    """On a file system without hard links the earlier file is copied; the copy may be half there."""
    for name in 'ab':
        (tmp_path / name).write_text('old')
    no_link = Mock(side_effect=OSError(errno.EPERM, 'Operation not permitted'))

    def half(path, data):
        path.write_text('o')
        no_space()

    monkeypatch.setattr(os, 'link', no_link)
    monkeypatch.setattr(Path, 'write_bytes', half)
    with pytest.raises(InputError, match='the disk is full'):
        atomic_write_all({tmp_path / name: b'new' for name in 'ab'})
    assert names(tmp_path) == ['a', 'b']
    assert (tmp_path / 'a').read_text() == (tmp_path / 'b').read_text() == 'old'


def kill(work):
    """Run a function in a child, and kill it on its signal."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda: (os.write(tell, b'x'), time.sleep(60)))
        finally:
            os._exit(0)
    assert os.read(told, 1) == b'x'
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(told)
    os.close(tell)
    assert os.WIFSIGNALED(status)


def test_killed_in_the_middle_of_a_file(tmp_path):
    (tmp_path / 'a').write_text('old')

    def work(wait):
        def half(file):
            file.write(b'half of it')
            file.flush()
            wait()

        atomic_write(tmp_path / 'a', half)

    kill(work)
    assert (tmp_path / 'a').read_text() == 'old'
    left = [name for name in names(tmp_path) if name != 'a']
    assert len(left) == 1  # nobody could tidy up; the name says what it is
    assert left[0].startswith('.a.')
    assert left[0].endswith('.tmp')
    atomic_text(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'new'


@pytest.mark.parametrize(('which', 'group'), [('a', 'a'), ('a', 'abc'), ('b', 'abc'), ('c', 'abc')])
def test_killed_at_a_renaming(tmp_path, which, group):
    """Each file is the earlier or the new one, whole; three renamings are not one, and none is lost."""
    for name in group:
        (tmp_path / name).write_text(f'old {name}')

    def work(wait):
        replace = os.replace

        def waits(source, target):
            if Path(target).name == which:
                wait()
            replace(source, target)

        os.replace = waits
        atomic_write_all({tmp_path / name: f'new {name}'.encode() for name in group})

    kill(work)
    for name in group:
        assert (tmp_path / name).read_text() == f'{"new" if name < which else "old"} {name}'


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        ('traffic light', 'traffic light'),
        ('größe 中', 'größe 中'),
        ('a/b', 'a_b'),
        ('a\\b:c*?"<>|', 'a_b_c______'),
        ('/abs', '_abs'),
        ('../../etc', '_._.._etc'),
        ('..', '__'),
        ('.', '_'),
        ('', '_'),
        ('.hidden', '_hidden'),
        ('end. ', 'end._'),
        ('a\0b\nc', 'a_b_c'),
        ('\ud800', '_'),  # JSON can hold half of a character
        ('x' * 300, 'x' * 200),
        ('ä' * 300, 'ä' * 100),
    ],
)
def test_a_name_is_one_part_of_a_path(text, name, tmp_path):
    assert file_name(text, set()) == name
    (tmp_path / name).mkdir()
    assert names(tmp_path) == [name]


def test_no_name_is_given_twice():
    """Nor in other case or in another Unicode form, which some file systems do not distinguish."""
    taken = set()
    found = [file_name(text, taken) for text in ('a/b', 'a_b', 'A_B', 'a_b_2', 'é', 'e\u0301')]
    assert found == ['a_b', 'a_b_2', 'A_B_3', 'a_b_2_2', 'é', 'e\u0301_2']


def test_paths_stay_below_a_folder(tmp_path):
    assert path_below(tmp_path, 'a/b.jpg', 'x') == tmp_path / 'a' / 'b.jpg'
    for name in ('../b.jpg', 'a/../../b.jpg', '/b.jpg', '..', '.', '', 'a\0.jpg'):
        with pytest.raises(InputError, match=r'^file_name: got .*; expected the name of a file'):
            path_below(tmp_path, name, 'file_name')


def test_a_full_disk_is_known_behind_other_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'fsync', no_space)
    with pytest.raises(InputError) as caught:
        atomic_text(tmp_path / 'a', 'x')
    assert disk_is_full(caught.value)
    assert not disk_is_full(InputError('the disk is full'))
    assert not disk_is_full(OSError(errno.EACCES, 'no permission'))
