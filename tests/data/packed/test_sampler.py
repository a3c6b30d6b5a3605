"""ShardSampler gives each image once, shard by shard, reproducibly, to any number of processes."""

import itertools
import os
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.registry import DATA_SAMPLERS

from mobileone_mm.data.packed import sampler as sampling
from mobileone_mm.data.packed.packs import TarPack
from mobileone_mm.data.packed.sampler import fill_cache
from mobileone_mm.errors import InputError

SIZES = (5, 9, 1, 7, 11, 4)
COUNT = sum(SIZES)


class Samples:
    """A dataset of tar shards with another order than the shards."""

    def __init__(self, folder, write_tar):
        for number, size in enumerate(SIZES):
            members = [(f'{number}/{row}.jpg', os.urandom(50)) for row in range(size)]
            write_tar(folder / f's{number}.tar', members)
        self.pack = TarPack(folder)
        self.rows = np.random.default_rng(0).permutation(sum(SIZES))

    def pack_rows(self):
        return self.rows

    def shards_of(self, indices):
        return self.pack.index.shard[self.rows[indices]]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory, write_tar):
    return Samples(tmp_path_factory.mktemp('shards'), write_tar)


def sampler(dataset, rank=0, world=1, epoch=0, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mobileone_mm.data.packed.sampler.get_dist_info', lambda: (rank, world))
        settings = {'type': 'mobileone_mm.ShardSampler', 'seed': 3, **options}
        built = DATA_SAMPLERS.build(dict(dataset=dataset, **settings))
    built.set_epoch(epoch)
    return built


@pytest.mark.parametrize('window', [1, 4, 1000])
@pytest.mark.parametrize('world', [1, 2, 3, 5])
def test_exact_epoch(world, window, dataset):
    for round_up in (True, False):
        options = dict(window=window, round_up=round_up)
        samplers = [sampler(dataset, rank, world, **options) for rank in range(world)]
        parts = [list(each) for each in samplers]
        sizes = [len(part) for part in parts]
        assert sizes == [len(each) for each in samplers]
        assert set(itertools.chain(*parts)) == set(range(COUNT))
        if round_up:
            assert len(set(sizes)) == 1
            assert sum(sizes) - COUNT < world
        else:
            assert sum(sizes) == COUNT


def test_order_follows_from_seed_and_epoch(dataset):
    first, orders = sampler(dataset), set()
    for epoch in range(3):
        first.set_epoch(epoch)
        order = list(first)
        assert order == list(first), 'the same epoch, the same order'
        assert order == list(sampler(dataset, epoch=epoch)), 'as after a resume'
        assert order != list(sampler(dataset, epoch=epoch, seed=4))
        orders.add(tuple(order))
    assert len(orders) == 3


def test_shard_by_shard(dataset):
    sequences = set()
    for epoch in range(4):
        order = list(sampler(dataset, window=1, epoch=epoch))
        shards = dataset.shards_of(order)
        changes = np.flatnonzero(np.diff(shards)) + 1
        assert len(changes) == len(SIZES) - 1, 'no shard is visited twice'
        for part in np.split(dataset.rows[order], changes):
            assert (np.diff(part) == 1).all(), 'from start to end'
        sequences.add(tuple(dict.fromkeys(shards.tolist())))
    assert len(sequences) > 1


def test_window(dataset):
    # The shards are in the same order, as the draw of the shards comes first.
    straight, mixed = (list(sampler(dataset, window=window)) for window in (1, 6))
    moved = [abs(straight.index(index) - number) for number, index in enumerate(mixed)]
    assert 0 < max(moved) < 6
    assert sum(step > 0 for step in moved) > COUNT // 2


def test_processes_read_different_shards(dataset):
    parts = [dataset.shards_of(list(sampler(dataset, rank, 3, window=4))) for rank in range(3)]
    shared = sum(len(set(a) & set(b)) for a, b in itertools.pairwise(parts))
    assert shared <= 2, 'at most the shard in which one part ends and the next begins'


def test_read_ahead(dataset, monkeypatch):
    """Every byte of the images is read once, forwards within each shard."""
    seen = {name: [] for name in dataset.pack.index.shards}
    original = os.preadv

    def preadv(handle, buffers, offset):
        count = original(handle, buffers, offset)
        name = os.path.basename(os.readlink(f'/proc/self/fd/{handle}'))
        seen[name].append((offset, offset + count))
        return count

    monkeypatch.setattr(sampling.os, 'preadv', preadv)
    monkeypatch.setattr(sampling, '_PIECE', 2000)
    reading = sampler(dataset, window=8, read_ahead=True)
    assert sorted(reading) == list(range(COUNT))
    reading._reader.join()
    index = dataset.pack.index
    for shard, name in enumerate(index.shards):
        read = {byte for piece in seen[name] for byte in range(*piece)}
        for row in index.rows[index.shard == shard]:
            assert read.issuperset(range(row['offset'], row['offset'] + row['size']))
        assert seen[name] == sorted(seen[name])


def test_read_ahead_survives_a_lost_shard(tmp_path, write_tar, monkeypatch):
    """It also waits for the earlier thread."""
    for name in 'ab':
        write_tar(tmp_path / f'{name}.tar', [(f'{name}.jpg', b'x')])
    pack = TarPack(tmp_path)
    (tmp_path / 'a.tar').unlink()
    read = []
    monkeypatch.setattr(sampling.os, 'preadv', lambda *args: read.append(args[2]) or 0)
    fill_cache(pack, np.array([0, 1]), SimpleNamespace(join=lambda: read.append('earlier')))
    assert read == ['earlier', pack.index.rows[1]['offset']]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(window=0), 'window: got 0; expected an integer from 1'),
        (dict(window=2.5), 'window: got 2.5'),
        (dict(shuffle=False), 'shuffle: got False; use DefaultSampler'),
        (dict(dataset=[1, 2]), 'dataset: got list without tar shards'),
    ],
)
def test_bad_arguments(options, message, dataset):
    with pytest.raises(InputError, match=message):
        sampler(**{'dataset': dataset, **options})
