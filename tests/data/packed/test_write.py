"""write_pack: deterministic, whole or not at all, and nothing wrong goes in."""

import os
import sys
from pathlib import Path
from unittest.mock import Mock

import lmdb
import pytest

from helpers import write_files
from mobileone_mm.data.packed import write
from mobileone_mm.data.packed.packs import open_pack, read_classes
from mobileone_mm.data.packed.write import Item, items_of_dataset, items_of_folder, write_pack
from mobileone_mm.errors import InputError, ProofError


@pytest.fixture
def items(tmp_path):
    folder = write_files(tmp_path / 'in', {f'{n}.jpg': chr(n) * 1000 * n for n in range(6)})
    return [Item(str(folder / f'{n}.jpg'), f'c{n % 2}/{n}.jpg', n % 2) for n in range(6)]


def nothing_left(folder):
    return sorted(path.name for path in folder.iterdir()) == ['in']


def test_one_seed_one_result(pack, tmp_path):
    seeds = dict(a=1, b=1, c=2, kept=None)
    folders = [pack(tmp_path / name, seed=seed) for name, seed in seeds.items()]
    first, same, other, _ = ([p.read_bytes() for p in sorted(f.glob('*.tar'))] for f in folders)
    assert first == same != other
    assert len(first) > 1
    shuffled, *_, kept = ([name for name, _ in open_pack(f).samples()] for f in folders)
    lines = (tmp_path / 'kept' / 'labels.txt').read_text().splitlines()
    assert kept == [line.rpartition(' ')[0] for line in lines] != shuffled


def test_items(form, items, tmp_path):
    packed = write_pack(items, tmp_path / 'a' / 'b', form, classes=['even', 'odd'])
    assert packed == (items, 15_000, [])
    pack = open_pack(tmp_path / 'a' / 'b')
    assert dict(pack.samples()) == {item.name: item.label for item in items}
    assert read_classes(pack.folder) == ('even', 'odd')
    for item in items:
        assert pack.read(item.name) == Path(item.path).read_bytes()
    assert {path.name for path in (tmp_path / 'a').iterdir()} == {'b'}


def test_lmdb_grows(items, tmp_path, monkeypatch):
    """Beyond the address space that it starts with."""
    monkeypatch.setattr(write, '_MB', 1024)
    monkeypatch.setattr(write, '_BATCH', 1)
    large = tmp_path / 'in' / 'large.jpg'
    large.write_bytes(b'x' * 2_000_000)
    write_pack([*items, Item(str(large), 'z.jpg', 0)], tmp_path / 'out', 'lmdb')
    assert open_pack(tmp_path / 'out').read('z.jpg') == large.read_bytes()


def test_from_one_form_to_the_other(items, tmp_path):
    write_pack(items, tmp_path / 'a', 'lmdb')
    again = dict(type='mobileone_mm.PackedDataset', data_root=str(tmp_path / 'a'))
    found, _ = items_of_dataset(again)
    assert [(item.name, item.label) for item in found] == [(i.name, i.label) for i in items]
    write_pack(found, tmp_path / 'b')
    assert open_pack(tmp_path / 'b').read('c1/5.jpg') == Path(items[5].path).read_bytes()


def test_what_cannot_be_packed_is_left_out(form, items, tmp_path, monkeypatch):
    """An image that is gone, between shards as well, and names that the pack cannot hold."""
    monkeypatch.setattr(write, '_MB', 1024)
    monkeypatch.setattr(write, '_BATCH', 2)
    for gone in (0, 4, 5):
        Path(items[gone].path).unlink()
    path = items[1].path
    odd = [Item(path, name, 1) for name in ('a\nb.jpg', 'caf\udce9.jpg', 'a' * 600 + '.jpg')]
    kept, out = items[1:4], tmp_path / 'new' / 'out'
    if form == 'shards':
        kept += odd[2:]
        odd[2] = Item(path, 'a.txt', 1)
    packed = write_pack(
        [*items, *odd, *kept[3:]], out, form, classes=['even', 'odd'], seed=None, shard_size=1
    )
    assert packed.items == kept
    assert len(packed.left_out) == 6
    for reason in ('line break', 'not UTF-8', '0.jpg', '4.jpg', '5.jpg'):
        assert sum(reason in line for line in packed.left_out) == 1
    pack = open_pack(out)
    assert list(pack.images().items())[:3] == [
        (item.name, (item.label, n)) for n, item in enumerate(kept[:3])
    ]
    assert packed.size == sum(len(pack.read(item.name)) for item in kept)
    with pytest.raises(
        InputError, match=r"none of the images .*0\.jpg' cannot be read: no such file"
    ):
        write_pack(items[:1], tmp_path / 'new2', form)
    assert {path.name for path in tmp_path.iterdir()} == {'in', 'new'}


@pytest.mark.parametrize(
    ('spoil', 'error', 'message'),
    [
        (lambda name, c: c[:-1] + b'!' if name == 'c1/3.jpg' else c, ProofError,
         r'3\.jpg.*other bytes were read back'),
        (lambda name, c: b'7' if name.endswith('.cls') else c, ProofError,
         'other names or classes were read back'),
        (Mock(side_effect=OSError(28, 'full')), InputError, 'OUT: cannot write .*: the disk is full'),
    ],
)  # fmt: skip
def test_what_comes_back_is_compared(spoil, error, message, items, tmp_path, monkeypatch):
    original = write._add
    monkeypatch.setattr(
        write, '_add', lambda tar, name, content: original(tar, name, spoil(name, content))
    )
    with pytest.raises(error, match=message):
        write_pack(items, tmp_path / 'out')
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(form='zip'), "--format: got 'zip'; expected one of shards, lmdb"),
        (dict(shard_size=0), '--shard-size: got 0'),
        (dict(items=[Item('a.txt', 'a.txt')]), "'a.txt' is not an image"),
        (dict(items=[Item('x', 'a.jpg'), Item('y', 'a.png')]), "both be called 'a'.*format lmdb"),
        (dict(items=[Item('x', 'a.b.jpg'), Item('y', 'a_b.jpg')]), "both be called 'a_b'"),
        (dict(items=[Item('x\ny.jpg', 'x\ny.jpg')]), 'has a line break in its name'),
        (
            dict(items=[Item('in/0.jpg', 'a' * 600 + '.jpg')], form='lmdb'),
            'a name of 604 bytes; LMDB allows 511',
        ),
        (dict(out='in'), "OUT: 'in' is not empty"),
        (dict(out='in/0.jpg'), "OUT: 'in/0.jpg' is a file"),
        (dict(out='/proc/none'), "OUT: cannot write '/proc/none'"),
    ],
)
def test_refused(change, message, items, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        write_pack(**{'items': items, 'out': 'out', **change})
    assert '\n' not in str(caught.value)
    assert nothing_left(tmp_path)


def test_folders(tiny_imagenet, tiny_coco):
    items, classes = items_of_folder(tiny_imagenet / 'val')
    files = sorted((tiny_imagenet / 'val').glob('*/*'))
    assert classes == tuple(sorted({path.parent.name for path in files}))
    assert [item.label for item in items] == [classes.index(path.parent.name) for path in files]
    assert [item.name for item in items] == [f'{path.parent.name}/{path.name}' for path in files]
    items, _ = items_of_folder(tiny_coco / 'val2017', with_label=False)
    assert [item.label for item in items] == [-1] * 4
    with pytest.raises(InputError, match='has no class folders; pass --no-labels'):
        items_of_folder(tiny_coco / 'val2017')


def test_without_lmdb(items, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'lmdb', None)
    with pytest.raises(InputError, match='--format lmdb: it needs .* lmdb: pip install lmdb'):
        write_pack(items, tmp_path / 'out', 'lmdb')
    assert nothing_left(tmp_path)
    (tmp_path / 'in' / 'data.mdb').write_bytes(b'')
    with pytest.raises(InputError, match='is an LMDB: it needs the package lmdb'):
        open_pack(tmp_path / 'in')


@pytest.mark.parametrize(('free', 'said'), [(0, 'the disk is full; free'), (10**9, 'txn: Input')])
def test_lmdb_on_a_full_disk(free, said, items, tmp_path, monkeypatch):
    monkeypatch.setattr('lmdb.open', Mock(side_effect=lmdb.Error('txn: Input/output error')))
    monkeypatch.setattr('shutil.disk_usage', lambda _: Mock(free=free))
    with pytest.raises(InputError, match=f'^OUT: cannot write the LMDB: {said}'):
        write_pack(items, tmp_path / 'out', 'lmdb')
    assert nothing_left(tmp_path)


def test_lmdb_that_is_cut_off(items, tmp_path):
    """A process that reads beyond the end of the file is killed."""
    write_pack(items, tmp_path / 'out', 'lmdb')
    file = tmp_path / 'out/data.mdb'
    size = file.stat().st_size
    os.truncate(file, size - 4096)
    for _ in range(2):
        with pytest.raises(InputError, match=f'has {size - 4096} bytes, .* has {size}: it is'):
            open_pack(tmp_path / 'out').read(items[0].name)


def test_lmdb_that_is_none(tmp_path):
    (tmp_path / 'data.mdb').write_bytes(b'no LMDB' * 2000)
    pack = open_pack(tmp_path)
    with pytest.raises(OSError, match=r"LMDB: .*!/x\.jpg'$"):
        pack.read('x.jpg')
    with pytest.raises(InputError, match='has no labels.txt'):
        pack.images()
    for line in ('a.jpg', 'a.jpg cat', 'a.jpg -2', ' 3'):
        (tmp_path / 'labels.txt').write_text(f'b.jpg 1\n{line}\n')
        with pytest.raises(InputError, match='line 2: got .*expected NAME LABEL'):
            pack.images()
