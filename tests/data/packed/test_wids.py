"""The comparison with webdataset's ``wids`` in docs/data.md: pip install webdataset==0.2.111, then

python -m pytest -s -m slow tests/data/packed/test_wids.py
"""

from __future__ import annotations

import os
import time
from collections import Counter
from statistics import median

import numpy as np
import pytest

from mobileone_mm.data.packed.packs import read_pack

wids = pytest.importorskip('wids', reason='webdataset 0.2.111 is not installed')
pytestmark = pytest.mark.slow
COUNT, SHARDS = 12_000, 27


@pytest.fixture(scope='module')
def folder(tmp_path_factory, write_tar):
    path, data = tmp_path_factory.mktemp('shards'), os.urandom(40_000)
    for shard, part in enumerate(np.array_split(np.arange(COUNT), SHARDS)):
        members = [
            member
            for row in part.tolist()
            for member in ((f'{row}.jpg', data[row:][:20_000]), (f'{row}.cls', b'%d' % (row % 100)))
        ]
        write_tar(path / f's{shard:02}.tar', members)
    read_pack(path)  # writes the index
    return path


def test_against_wids(folder):
    """Equal bytes and classes, in less time."""
    index = read_pack(folder).index
    counts = Counter(index.shard.tolist())
    spec = [
        dict(url=str(folder / name), nsamples=counts[shard])
        for shard, name in enumerate(index.shards)
    ]
    names = [name for name, _ in read_pack(folder).samples()]

    def ours(rows):
        pack = read_pack(folder)
        return [pack.read(names[row]) for row in rows]

    def theirs(rows, member='.jpg', opened=200):
        dataset = wids.ShardListDataset(
            spec, localname=str, transformations=[], lru_size=opened, keep=True
        )
        return [dataset[row][member].read() for row in rows]

    random, ordered = np.random.default_rng(0).permutation(COUNT)[:3000].tolist(), range(COUNT)
    ways = {
        'random order': (lambda: ours(random), lambda: theirs(random)),
        'random order, 10 shards open': (lambda: ours(random), lambda: theirs(random, opened=10)),
        'order of the shards': (lambda: ours(ordered), lambda: theirs(ordered)),
        'classes': (
            lambda: [b'%d' % label for _, label in read_pack(folder).samples()],
            lambda: theirs(ordered, '.cls'),
        ),
    }
    for name, pair in ways.items():
        spent: tuple[list[float], list[float]] = ([], [])
        results = [None, None]
        for _ in range(1 if 'open' in name else 5):
            for side, way in enumerate(pair):
                start = time.perf_counter()
                results[side] = way()
                spent[side].append(time.perf_counter() - start)
        assert results[0] == results[1]
        print(f'{name}: {median(spent[0]):.2f} s, wids {median(spent[1]):.2f} s')
        assert median(spent[0]) < median(spent[1])
