"""The comparison with webdataset's ``wids`` in docs/data.md: pip install webdataset==0.2.111, then

python -m pytest -s -m slow tests/data/packed/test_wids.py
"""

import os
import time
from functools import partial

import numpy as np
import pytest

from mobileone_mm.data.packed.packs import read_pack

wids = pytest.importorskip('wids', reason='webdataset 0.2.111 is not installed')
pytestmark = pytest.mark.slow
COUNT, SHARDS = 12_000, 27


def test_against_wids(tmp_path, write_tar):
    data = os.urandom(40_000)
    for shard, part in enumerate(np.array_split(np.arange(COUNT), SHARDS)):
        members = [
            member
            for row in part.tolist()
            for member in ((f'{row}.jpg', data[row:][:20_000]), (f'{row}.cls', b'%d' % (row % 100)))
        ]
        write_tar(tmp_path / f's{shard:02}.tar', members)
    index = read_pack(tmp_path).index  # and store it
    sizes = np.bincount(index.shard).tolist()
    spec = [
        dict(url=str(tmp_path / name), nsamples=size)
        for name, size in zip(index.shards, sizes, strict=True)
    ]
    names = [name for name, _ in read_pack(tmp_path).samples()]

    def ours(rows):
        pack = read_pack(tmp_path)
        return [pack.read(names[row]) for row in rows]

    def labels():
        return [b'%d' % label for _, label in read_pack(tmp_path).samples()]

    def theirs(rows, member='.jpg', opened=200):
        options = dict(localname=str, transformations=[], lru_size=opened, keep=True)
        dataset = wids.ShardListDataset(spec, **options)
        return [dataset[row][member].read() for row in rows]

    random, ordered = np.random.default_rng(0).permutation(COUNT)[:3000].tolist(), range(COUNT)
    for name, runs, mine, other in (
        ('random order', 5, partial(ours, random), partial(theirs, random)),
        ('10 shards open', 1, partial(ours, random), partial(theirs, random, opened=10)),
        ('order of the shards', 5, partial(ours, ordered), partial(theirs, ordered)),
        ('classes', 5, labels, partial(theirs, ordered, '.cls')),
    ):
        spent = np.zeros((runs, 2))
        for run in range(runs):
            results = []
            for side, way in enumerate((mine, other)):
                start = time.perf_counter()
                results.append(way())
                spent[run, side] = time.perf_counter() - start
        assert results[0] == results[1]
        fast, slow = np.median(spent, axis=0)
        print(f'{name}: {fast:.2f} s, wids {slow:.2f} s')
        assert fast < slow
