"""The rows of an interrupted view are there again, if they belong to it and are whole."""

import errno
from dataclasses import replace

import numpy as np
import pytest

from mobileone_mm.distill.partial import PartialView
from mobileone_mm.distill.stored import OutputsMeta
from mobileone_mm.errors import InputError

META = OutputsMeta(20, 4, 1.0, [dict(timm='a', b=1)], ['f'], [dict(type='Resize')], 7, 'i')
KEYS = np.array([3, 5, 8, 13], np.uint64)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'out' / 'view_0000.npy'


def filled():
    rows = META.rows(KEYS)
    rows['scores'] = np.arange(1, 17).reshape(4, 4)
    rows['signature'] = 9
    return rows


def begun(path, *batches):
    with PartialView(path, META.rows(KEYS), META) as part:
        for batch in batches:
            part.add(filled()[batch])
    return part


def resumed(path, meta=META):
    part = PartialView(path, meta.rows(KEYS), meta)
    return sorted(part.keys), np.flatnonzero(part.rows['scores'].any(1)).tolist()


def test_rows_are_there_again(path):
    assert resumed(path) == ([], [])
    assert not path.parent.exists()
    begun(path, [2, 0])
    assert resumed(path) == ([3, 8], [0, 2])
    # The order of keys in a dict is not part of the settings.
    assert resumed(path, replace(META, teachers=[dict(b=1, timm='a')])) == ([3, 8], [0, 2])
    assert np.array_equal(begun(path, [1], [3]).rows[[0, 2]], filled()[[0, 2]])
    assert resumed(path) == ([3, 5, 8, 13], [0, 1, 2, 3])


@pytest.mark.parametrize(('rest', 'kept'), [(-1, [3]), (b'\0' * 200, [3, 8]), (b'x', [3, 8])])
def test_what_is_not_whole_is_dropped(rest, kept, path):
    file = begun(path, [0], [2]).path
    content = file.read_bytes()
    file.write_bytes(content[:rest] if isinstance(rest, int) else content + rest)
    assert resumed(path)[0] == kept
    begun(path, [1])
    assert resumed(path)[0] == sorted([*kept, 5])


def test_a_file_without_settings_is_overwritten(path):
    file = begun(path, [0]).path
    for content in (b'', b'{"num_classes": 2', b'{}\n', b'[]\nxyz'):
        file.write_bytes(content)
        assert resumed(path) == ([], [])
        begun(path, [1])
        assert resumed(path) == ([5], [1])


def test_other_settings_are_refused(path):
    begun(path, [0])
    with pytest.raises(InputError, match=r"view_0000.part': have other seed \(7; now: 8\)"):
        resumed(path, replace(META, seed=8))


def test_a_full_disk(path):
    class Full:
        """Takes a part of a batch, then nothing."""

        def write(self, content):
            if len(content) < 100:
                raise OSError(errno.ENOSPC, 'full')
            return file.write(content[:-20])

    with PartialView(path, META.rows(KEYS), META) as part:
        part.add(filled()[:2])
        file, part._file = part._file, Full()
        with pytest.raises(InputError, match=r"cannot write '.*part': the disk is full"):
            part.add(filled()[2:])
        part._file = file
    assert resumed(path)[0] == [3, 5, 8]
