"""A list of records is in its file after each batch, whatever happens then."""

import errno
import json
import os
from unittest.mock import Mock

import pytest

from mobileone_mm.errors import InputError
from mobileone_mm.inference.record_file import RecordFile

HEAD = dict(config='a.py', classes=['ä', 'b'], task=None)
REST = dict(unreadable=[], undrawn=[{'image': 'x'}])


def record(number):
    return {'image': f'{number}\n.jpg', 'boxes': [{'bbox': [0.5, number], 'none': []}], 'empty': {}}


@pytest.fixture
def file(tmp_path):
    return RecordFile(tmp_path / 'predictions.json', 'predictions')


def test_it_is_the_file_that_json_writes(file):
    file.path.write_text('of an earlier run')
    file.add([], HEAD)
    assert file.path.read_text() == 'of an earlier run'
    done = []
    for batch in ([0], [1, 2], [], [3]):
        file.add([record(number) for number in batch], HEAD)
        done += map(record, batch)
        table = json.loads(file.path.read_text())
        assert table == {**HEAD, 'predictions': done, 'unfinished': True}
    file.finish(REST)
    table = {**HEAD, 'predictions': done, **REST}
    assert file.path.read_text() == json.dumps(table, indent=1) + '\n'


def test_a_run_without_records_keeps_an_earlier_file(file):
    file.path.write_text('of an earlier run')
    file.finish(REST)
    assert file.path.read_text() == 'of an earlier run'


class Full:
    """A file on a disk that takes some bytes more than the file had, then none."""

    def __init__(self, file, room):
        self.file, self.end = file, os.fstat(file.fileno()).st_size + room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        taken = self.file.write(content[: max(0, self.end - self.file.tell())])
        if not taken:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return taken


@pytest.mark.parametrize('room', [0, 7, 60])
def test_a_full_disk_costs_one_batch(room, file):
    file.add([record(0)], HEAD)
    file._file = Full(file._file, room)
    for call in (lambda: file.add([record(1)], HEAD), lambda: file.finish({'long': 'x' * 500})):
        with pytest.raises(
            InputError, match=r"cannot write '.*predictions.json': the disk is full"
        ):
            call()
        table = json.loads(file.path.read_text())
        assert table == {**HEAD, 'predictions': [record(0)], 'unfinished': True}
        assert file.count == 1


def test_an_interrupt_costs_one_batch(file, monkeypatch):
    file.add([record(0)], HEAD)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            file.add([record(1)], HEAD)
    file.finish(REST)
    assert json.loads(file.path.read_text()) == {**HEAD, 'predictions': [record(0)], **REST}
