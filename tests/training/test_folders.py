"""Folders that a run writes into."""

from types import SimpleNamespace

import pytest

from mobileone_mm.errors import InputError
from mobileone_mm.training import folders
from mobileone_mm.training.runner import Runner


@pytest.fixture
def work_dir(tmp_path):
    for name in ('epoch_2.pth', 'epoch_10.pth', 'epoch_9.pth', 'best_acc_epoch_99.pth'):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('note', 'latest'),
    [
        ('{folder}/epoch_9.pth', 'epoch_9.pth'),
        ('/elsewhere/epoch_9.pth', 'epoch_9.pth'),  # the folder was moved
        ('/elsewhere/epoch_50.pth', 'epoch_10.pth'),
        ('C:/Jürgen/epoch_9.pth', 'epoch_9.pth'),  # in the encoding of the locale
        ('', 'epoch_10.pth'),
        (None, 'epoch_10.pth'),
    ],
)
def test_latest(note, latest, work_dir):
    if note is not None:
        text = note.format(folder=work_dir)
        (work_dir / 'last_checkpoint').write_bytes(text.encode('cp1252'))
    assert folders.latest_checkpoint(work_dir) == str(work_dir / latest)


def test_latest_of_a_copied_run(work_dir, tmp_path):
    original = tmp_path / 'original' / 'epoch_9.pth'
    original.parent.mkdir()
    original.touch()
    (work_dir / 'last_checkpoint').write_text(str(original))
    assert folders.latest_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')
    (work_dir / 'epoch_9.pth').unlink()
    assert folders.latest_checkpoint(work_dir) == str(original)


def test_no_checkpoint(tmp_path):
    assert folders.latest_checkpoint(tmp_path) is None


def test_the_first_process_probes_with_some_data(tmp_path, monkeypatch):
    """An empty file, or one that is not on the disk yet, would not show that the disk is full."""
    sizes = []
    sync = lambda _: sizes.extend(path.stat().st_size for path in tmp_path.iterdir())  # noqa: E731
    monkeypatch.setattr(folders.os, 'fsync', sync)
    folders.check_writable(tmp_path, '--work-dir')
    assert sizes == [4096]
    monkeypatch.setenv('RANK', '1')
    folders.check_writable(tmp_path, '--work-dir')
    assert sizes == [4096]


def test_the_config_is_written_after_the_first_iteration(monkeypatch):
    written = []
    monkeypatch.setattr(Runner, 'write_config', lambda self, folder: written.append(folder))
    runner = Runner.__new__(Runner)
    runner._work_dir, runner._log_dir = 'work', 'log'
    for start, end in (('before_train', 'after_train_iter'), ('before_test', 'after_test_iter')):
        progress = folders.Progress()
        assert (progress.started, progress.done) == (False, False)
        getattr(progress, start)(runner)
        assert (progress.started, progress.done) == (True, False)
        for index in range(3):
            getattr(progress, end)(runner, index)
    assert written == ['work', 'log']


def test_probe_leaves_no_trace(tmp_path):
    folders.check_writable(tmp_path / 'a' / 'b', '--work-dir')
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'mine').mkdir()
    folders.check_writable(tmp_path / 'mine', '--work-dir')
    assert list(tmp_path.rglob('*')) == [tmp_path / 'mine']
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(InputError, match="--out-dir: cannot write '.*file': a file of that name"):
        folders.check_writable(tmp_path / 'file', '--out-dir')
    assert (tmp_path / 'file').read_text() == 'mine'


def refused_run(folder, error, iterations=0):
    """What the Runner writes before it builds a model, and then an error."""
    with folders.nothing_left_behind(folder) as first:
        log_dir = folder / '20260101'
        (log_dir / 'vis_data').mkdir(parents=True)
        (log_dir / 'run.log').write_text('log')
        Runner.log_dirs.extend([log_dir, folder / 'never made'])
        for _ in range(iterations):
            first.after_train_iter(SimpleNamespace(work_dir=folder), 0)
        raise error


def test_a_refused_run_leaves_nothing(tmp_path):
    with pytest.raises(InputError):
        refused_run(tmp_path / 'work_dirs' / 'x', InputError('refused'))
    assert list(tmp_path.iterdir()) == []


def test_what_others_write_meanwhile_stays(tmp_path):
    """A training may be saving in the folder in which a test is refused."""
    (tmp_path / 'epoch_1.pth').touch()

    class Refused(InputError):
        def __init__(self):
            (tmp_path / 'epoch_2.pth').touch()
            super().__init__('refused')

    with pytest.raises(InputError), folders.nothing_left_behind(tmp_path):
        raise Refused
    with pytest.raises(InputError):
        refused_run(tmp_path, Refused())
    assert sorted(path.name for path in tmp_path.iterdir()) == ['epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize(
    ('error', 'iterations'),
    [(InputError('a broken image'), 1), (ZeroDivisionError('a fault'), 0), (InputError('rank'), 0)],
)
def test_the_log_of_a_run_that_got_somewhere_stays(error, iterations, tmp_path, monkeypatch):
    """And the first process alone removes one."""
    monkeypatch.setenv('RANK', '1' if str(error) == 'rank' else '0')
    with pytest.raises(type(error)):
        refused_run(tmp_path, error, iterations)
    assert (tmp_path / '20260101' / 'run.log').exists()
