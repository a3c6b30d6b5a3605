"""Tar shards of any origin, and the index that goes stale."""

import gzip
import os
from unittest.mock import Mock

import numpy as np
import pytest

from mobileone_mm.data.packed import shards as indexing
from mobileone_mm.data.packed.packs import TarPack, open_pack
from mobileone_mm.data.packed.shards import INDEX_FILE, member_name, open_index, read_samples
from mobileone_mm.errors import InputError


def rows(folder):
    pack = TarPack(folder)
    return [(name, label, pack.read(name)) for name, label in pack.samples()]


def test_webdataset_layouts(tmp_path, write_tar):
    """Labels in .cls, in .json under either name, other members beside them, long names."""
    long = 'x' * 150
    members = {
        '000000.cls': b'3\n',
        '000000.jpg': b'first',
        '000001.PNG': b'second',
        '000001.json': b'{"label": 4, "caption": "a"}',
        '000001.txt': b'a caption',
        'a.b/000002.jpeg': b'',
        'a.b/000002.json': b'{"cls": 0}',
        f'{long}/ä.webp': b'fourth',
        f'{long}/ä.cls': b'12',
        f'{long}/ä.json': b'{"width": 5}',
        'README': b'no sample',
    }
    write_tar(tmp_path / 'shard-000000.tar', members.items())
    assert rows(tmp_path) == [
        ('000000.jpg', 3, b'first'),
        ('000001.PNG', 4, b'second'),
        ('a.b/000002.jpeg', 0, b''),
        (f'{long}/ä.webp', 12, b'fourth'),
    ]


def test_webdataset_reads_what_we_index(tmp_path, write_tar):
    """The library itself, where it is installed, agrees on keys, images and classes."""
    webdataset = pytest.importorskip('webdataset', reason='webdataset is not installed')
    path = write_tar(
        tmp_path / 'a.tar', [('n1/a_b.JPEG', b'x' * 700), ('n1/a_b.cls', b'5'), ('c.jpg', b'y')]
    )
    theirs = {s['__key__']: s for s in webdataset.WebDataset(str(path), shardshuffle=False)}
    ours = {sample.name.rpartition('.')[0]: sample for sample in read_samples(path)}
    assert theirs.keys() == ours.keys()
    assert theirs['n1/a_b']['jpeg'] == path.read_bytes()[ours['n1/a_b'].offset :][:700]
    assert int(theirs['n1/a_b']['cls']) == ours['n1/a_b'].label == 5
    assert ours['c'].label == -1


@pytest.mark.parametrize(
    ('members', 'message'),
    [
        ([('a.png', b'x')], "'a' has a second image, .png"),
        ([('a.cls', b'cat')], "'a.cls' holds b'cat'; expected a class number from 0"),
        ([('a.cls', b'-7')], "'a.cls' holds"),
        ([('a.json', b'{"label": "cat"}')], "'a.json' holds"),
        ([('a.json', b'[1]')], "'a.json' holds"),
        ([('a.cls', b'1'), ('a.json', b'{"label": 2}')], "'a.json' holds"),
    ],
)
def test_bad_members(members, message, tmp_path, write_tar):
    write_tar(tmp_path / 'a.tar', [('a.jpg', b'x'), *members])
    with pytest.raises(InputError, match='shard .*a.tar') as caught:
        open_index(tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / INDEX_FILE).exists()


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: b'no tar at all' * 100,
        gzip.compress,
        lambda content: content[:7000],  # in an image
        lambda content: content[:5700],  # in a header
        lambda content: content[:5632] + b'\xff' * 200 + content[5832:],
    ],
)
def test_damaged_shards(damage, tmp_path, write_tar):
    members = [('a.jpg', b'x' * 5000), ('b.jpg', b'y' * 5000), ('b.cls', b'1')]
    path = write_tar(tmp_path / 'a.tar', members)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r'a\.tar') as caught:
        open_index(tmp_path)
    assert '\n' not in str(caught.value)


def test_names_that_start_anew_in_each_shard(tmp_path, write_tar):
    for shard, letter in (('s0', b'a'), ('s1', b'b')):
        write_tar(tmp_path / f'{shard}.tar', [('000.jpg', letter), ('000.cls', b'1')])
    assert rows(tmp_path) == [('s0/000.jpg', 1, b'a'), ('s1/000.jpg', 1, b'b')]
    with pytest.raises(FileNotFoundError):
        TarPack(tmp_path).read('000.jpg')


def test_dots_in_names(tmp_path, write_tar):
    """WebDataset ends a key at the first dot, so they are packed as underscores and still found."""
    assert member_name('a.b/c.d.e.jpg') == 'a.b/c_d_e.jpg'
    assert member_name('.hidden.jpg') == '_hidden.jpg'
    write_tar(tmp_path / 'a.tar', [(member_name('a.b/c.d.jpg'), b'x')])
    assert TarPack(tmp_path).read('a.b/c.d.jpg') == b'x'


def test_index_is_kept_and_made_anew(tmp_path, monkeypatch, write_tar):
    read = Mock(wraps=indexing.read_samples)
    monkeypatch.setattr(indexing, 'read_samples', read)
    for number in range(3):
        write_tar(tmp_path / f's{number}.tar', [(f'{number}.jpg', b'x' * (number + 1))])
    first = open_index(tmp_path)
    again = open_index(tmp_path)
    assert read.call_count == 3
    assert np.array_equal(again.rows, first.rows)

    # One is replaced by another of the same size, one goes, one comes.
    write_tar(tmp_path / 's1.tar', [('new.jpg', b'yz')])
    os.utime(tmp_path / 's1.tar', ns=(1, 1))
    (tmp_path / 's0.tar').unlink()
    write_tar(tmp_path / 's9.tar', [('9.jpg', b'last')])
    changed = [(name, content) for name, _, content in rows(tmp_path)]
    assert changed == [('new.jpg', b'yz'), ('2.jpg', b'xxx'), ('9.jpg', b'last')]
    assert open_index(tmp_path).shards == TarPack(tmp_path).index.shards
    found = [call.args[0].stem for call in read.call_args_list]
    assert found == ['s0', 's1', 's2', 's1', 's9']


def test_damaged_index(tmp_path, write_tar):
    write_tar(tmp_path / 'a.tar', [('a.jpg', b'x' * 2000), ('b.jpg', b'y')])
    expected = rows(tmp_path)
    path = tmp_path / INDEX_FILE
    for damaged in (b'', b'no index', path.read_bytes()[:300]):
        path.write_bytes(damaged)
        assert rows(tmp_path) == expected
    with np.load(path) as file:
        ((key, table),) = file.items()
    table['offset'] += 10**9
    np.savez(path, **{'1' + key[1:]: table})  # of another version
    assert rows(tmp_path) == expected


def test_folder_that_cannot_be_written(tmp_path, monkeypatch, write_tar):
    said = []
    refuse = Mock(side_effect=InputError('cannot write: no permission'))
    monkeypatch.setattr(indexing, 'atomic_write', refuse)
    monkeypatch.setattr(indexing, 'print_log', lambda text, *_: said.append(text))
    write_tar(tmp_path / 'a.tar', [('a.jpg', b'x')])
    assert len(rows(tmp_path)) == 1
    assert 'cannot write: no permission; each process builds the index again' in said


def test_shard_that_shrank(tmp_path, write_tar):
    """Replaced during a run, behind the back of the index."""
    write_tar(tmp_path / 'a.tar', [('a.jpg', b'x' * 9000)])
    pack = TarPack(tmp_path)
    (tmp_path / 'a.tar').write_bytes(b'')
    with pytest.raises(OSError, match='shorter than its index says'):
        pack.read('a.jpg')


def test_no_pack(tmp_path):
    with pytest.raises(InputError, match=r'has no \*\.tar shards'):
        open_pack(tmp_path)
    with pytest.raises(InputError, match='is not a folder'):
        open_pack(tmp_path / 'none')
