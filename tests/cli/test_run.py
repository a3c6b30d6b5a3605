"""Exit codes and the one line on stderr."""

import errno
import logging
import sys
from unittest.mock import Mock

import cv2
import mmcv
import mmengine.fileio
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mobileone_mm.cli.run import call_tool, run_tool
from mobileone_mm.errors import InputError, ProofError, one_line
from mobileone_mm.faults import user_fault


def raising(error):
    return Mock(side_effect=error)


FULL = OSError(errno.ENOSPC, 'No space left on device', 'a/b.json')
GONE = FileNotFoundError(errno.ENOENT, 'No such file or directory', 'x.txt')
CLOSED = PermissionError(errno.EACCES, 'Permission denied', 'x')


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [(InputError('config: no such file'), 2, 'config: no such file'),
     (InputError('two\n  lines'), 2, 'two lines'),
     (ProofError('outputs differ by 1e-3'), 1, 'outputs differ by 1e-3'),
     (KeyboardInterrupt(), 130, 'interrupted'),
     (FULL, 2, "'a/b.json': the disk is full; free some space or choose another folder"),
     (GONE, 2, "'x.txt': no such file or folder"),
     (CLOSED, 2, "'x': no permission; choose a file or folder with the permission")],
)  # fmt: skip
def test_exit_code_and_line(error, code, line, capsys, monkeypatch):
    assert call_tool(raising(error)) == code
    assert capsys.readouterr().err == f'error: {line}\n'
    monkeypatch.setenv('MOBILEONE_MM_TRACEBACK', '1')
    assert call_tool(raising(error)) == code
    assert 'Traceback' in capsys.readouterr().err
    # Each process finds the same fault in the config: one line is enough.
    monkeypatch.delenv('MOBILEONE_MM_TRACEBACK')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert call_tool(raising(error)) == code
    assert capsys.readouterr().err == ''


def test_an_interrupt_that_a_bare_except_turned_into_another_error(capsys):
    error, formatted = RuntimeError('x'), SyntaxError('Failed to format the config file')
    error.__cause__, formatted.__context__ = formatted, KeyboardInterrupt()
    assert call_tool(raising(error)) == 130
    assert capsys.readouterr().err == 'error: interrupted\n'


@pytest.mark.parametrize(
    'error', [ZeroDivisionError(), ValueError('x'), KeyError('x'), RuntimeError('x'), OSError('x')]
)
def test_faults_of_the_program_keep_their_traceback(error, monkeypatch):
    monkeypatch.setattr(logging, 'raiseExceptions', True)
    for run in (call_tool, run_tool):
        with pytest.raises(type(error)):
            run(raising(error))


@pytest.mark.parametrize(('result', 'code'), [(None, 0), (0, 0), (3, 3)])
def test_result_is_the_exit_code(result, code, monkeypatch):
    monkeypatch.setattr(logging, 'raiseExceptions', True)
    with pytest.raises(SystemExit) as caught:
        run_tool(lambda argv: result)
    assert caught.value.code == code
    assert not logging.raiseExceptions  # a full disk is reported once


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
    [(InputError("image 'a.jpg' is cut off"), "image 'a.jpg' is cut off"),
     ('a.jpg', "'a.jpg': no such file or folder"),  # a host opens it
     (FileNotFoundError(errno.ENOENT, 'No such file', 'a.jpg'), None),  # code of the user does
     (ZeroDivisionError('division by zero'), None)],
)  # fmt: skip
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


def test_full_memory_and_a_key_error_without_quotes():
    message = 'unable to write to file </torch_1_2_3>: No space left on device (28)'
    assert '/dev/shm' in user_fault(RuntimeError(message))
    assert 'batch size' in user_fault(torch.OutOfMemoryError('CUDA out of memory'))
    with pytest.raises(cv2.error) as thin:
        mmcv.imrescale(np.zeros((1, 5000, 3), np.uint8), (96, 96))
    assert 'resizing leaves no pixel of its shorter side' in user_fault(thin.value)
    assert one_line(KeyError('no such key')) == 'no such key'
