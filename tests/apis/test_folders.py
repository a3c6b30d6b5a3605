"""Folders that a run writes into."""

from __future__ import annotations

import pytest

from mobileone_mm.apis import folders
from mobileone_mm.errors import InputError


@pytest.fixture
def work_dir(tmp_path):
    for name in ('epoch_2.pth', 'epoch_10.pth', 'epoch_9.pth', 'best_acc_epoch_99.pth'):
        (tmp_path / name).touch()
    return tmp_path


def test_latest_is_the_one_noted(work_dir):
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
    assert folders.latest_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')


def test_latest_in_a_folder_that_was_moved(work_dir):
    (work_dir / 'last_checkpoint').write_text('/elsewhere/epoch_9.pth')
    assert folders.latest_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')


@pytest.mark.parametrize('note', ['', '/elsewhere/epoch_50.pth', None])
def test_latest_by_number(note, work_dir):
    if note is not None:
        (work_dir / 'last_checkpoint').write_text(note)
    assert folders.latest_checkpoint(work_dir) == str(work_dir / 'epoch_10.pth')


def test_probe_leaves_no_trace(tmp_path):
    folders.check_writable(tmp_path / 'a' / 'b', '--work-dir')
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'mine').mkdir()
    folders.check_writable(tmp_path / 'mine', '--work-dir')
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_probe_of_a_file(tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(InputError, match="--out-dir: '.*file' is a file, a folder is needed"):
        folders.check_writable(tmp_path / 'file', '--out-dir')
    assert (tmp_path / 'file').read_text() == 'mine'


def refused_run(folder, error, iterations=0):
    """What mmengine's Runner writes before it builds a model, and then an error."""
    with folders.nothing_left_behind(folder) as first:
        (folder / '20260101' / 'vis_data').mkdir(parents=True)
        (folder / '20260101' / 'run.log').write_text('log')
        (folder / 'config.py').write_text('model = dict()')
        for _ in range(iterations):
            first.after_train_iter(None, 0)
        raise error


def test_a_refused_run_leaves_nothing(tmp_path):
    with pytest.raises(InputError):
        refused_run(tmp_path / 'work_dirs' / 'x', InputError('refused'))
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(InputError):
        refused_run(tmp_path, InputError('refused'))
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize(
    ('error', 'iterations'),
    [(InputError('a broken picture'), 1), (ZeroDivisionError('a fault'), 0)],
)
def test_the_log_of_a_run_that_got_somewhere_stays(error, iterations, tmp_path):
    with pytest.raises(type(error)):
        refused_run(tmp_path, error, iterations)
    assert (tmp_path / '20260101' / 'run.log').exists()
