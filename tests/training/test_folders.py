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
        Runner.log_dirs.append(log_dir)
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
    [(InputError('a broken image'), 1), (ZeroDivisionError('a fault'), 0)],
)
def test_the_log_of_a_run_that_got_somewhere_stays(error, iterations, tmp_path):
    with pytest.raises(type(error)):
        refused_run(tmp_path, error, iterations)
    assert (tmp_path / '20260101' / 'run.log').exists()
