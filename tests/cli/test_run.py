"""Exit codes and the one line on stderr."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import mmengine.fileio
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mobileone_mm.cli.run import call_tool
from mobileone_mm.errors import InputError, ProofError, one_line
from mobileone_mm.faults import user_fault

ROOT = Path(__file__).resolve().parents[2]


def raising(error):
    return Mock(side_effect=error)


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (InputError('config: no such file'), 2, 'error: config: no such file'),
        (InputError('two\n  lines'), 2, 'error: two lines'),
        (ProofError('outputs differ by 1e-3'), 1, 'error: outputs differ by 1e-3'),
        (KeyboardInterrupt(), 130, 'error: interrupted'),
        (
            OSError(errno.ENOSPC, 'No space left on device', 'a/b.json'),
            2,
            "error: 'a/b.json': the disk is full; free some space or choose another folder",
        ),
        (
            FileNotFoundError(errno.ENOENT, 'No such file or directory', 'x.txt'),
            2,
            "error: 'x.txt': no such file or folder",
        ),
        (
            PermissionError(errno.EACCES, 'Permission denied', 'x'),
            2,
            "error: 'x': no permission; choose a file or folder with the permission",
        ),
    ],
)
def test_exit_code_and_line(error, code, line, capsys):
    assert call_tool(raising(error)) == code
    assert capsys.readouterr().err == line + '\n'


def test_an_interrupt_that_a_bare_except_turned_into_another_error(capsys):
    def main(argv=None):
        try:
            raise KeyboardInterrupt
        except:  # noqa: E722
            raise SyntaxError('Failed to format the config file')  # noqa: B904

    assert call_tool(main) == 130
    assert capsys.readouterr().err == 'error: interrupted\n'


@pytest.mark.parametrize(
    'error', [ZeroDivisionError(), ValueError('x'), KeyError('x'), RuntimeError('x'), OSError('x')]
)
def test_faults_of_the_program_keep_their_traceback(error):
    with pytest.raises(type(error)):
        call_tool(raising(error))


@pytest.mark.parametrize(('result', 'code'), [(None, 0), (0, 0), (3, 3)])
def test_result_is_the_exit_code(result, code):
    assert call_tool(lambda argv: result) == code


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if isinstance(self.error, str):
            mmengine.fileio.get(self.error)
        raise self.error


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (InputError("image 'a.jpg' is cut off"), "image 'a.jpg' is cut off"),
        ('a.jpg', "'a.jpg': no such file or folder"),  # a host opens it
        # The code of the user does: the traceback says where.
        (FileNotFoundError(errno.ENOENT, 'No such file or directory', 'a.jpg'), None),
        (ZeroDivisionError('division by zero'), None),
    ],
)
def test_errors_of_workers(error, line, monkeypatch):
    """torch sends a worker's traceback home inside the message of the error."""
    batches = iter(DataLoader(Failing(error), num_workers=1))
    with pytest.raises(FileNotFoundError if isinstance(error, str) else type(error)) as caught:
        next(batches)
    batches._shutdown_workers()  # now, not whenever the cycle with the traceback is collected
    assert 'Traceback' in str(caught.value)
    assert user_fault(caught.value) == line
    if isinstance(error, FileNotFoundError):  # in a flag: no need to say where it is opened
        monkeypatch.setattr(sys, 'argv', ['tool', 'a.jpg'])
        assert user_fault(caught.value) == "'a.jpg': no such file or folder"


def test_full_shared_memory():
    message = 'unable to write to file </torch_1_2_3>: No space left on device (28)'
    assert '/dev/shm' in user_fault(RuntimeError(message))


def test_gpu_out_of_memory():
    assert 'batch size' in user_fault(torch.OutOfMemoryError('CUDA out of memory'))


def test_key_error_without_quotes():
    assert one_line(KeyError('no such key')) == 'no such key'


def test_one_process_reports(capsys, monkeypatch):
    """Every process finds the same fault in the config: one line is enough."""
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert call_tool(raising(InputError('x'))) == 2
    assert capsys.readouterr().err == ''


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from mobileone_mm.cli.run import run_tool
from mobileone_mm.errors import InputError
def main(argv=None):
    if sys.argv[2] == 'bug':
        raise ZeroDivisionError
    if sys.argv[2] == 'input':
        raise InputError('bad')
run_tool(main)
"""


@pytest.mark.parametrize(('what', 'code'), [('fine', 0), ('input', 2), ('bug', 1)])
def test_process(what, code):
    command = [sys.executable, '-c', PROGRAM, str(ROOT), what]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code
    assert ('Traceback' in result.stderr) == (what == 'bug')


def test_traceback_on_request(capsys, monkeypatch):
    monkeypatch.setenv('MOBILEONE_MM_TRACEBACK', '1')
    assert call_tool(raising(InputError('x'))) == 2
    assert 'Traceback' in capsys.readouterr().err
