"""Seeds by position: what depends on them, what does not, and errors while samples are loaded."""

import pickle
import random
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mobileone_mm.errors import InputError
from mobileone_mm.training.seeding import (
    ITERATIONS,
    SAMPLES,
    SeededIndex,
    SeededSampler,
    derived_seed,
    load_samples,
    seed_samples,
    seeded,
)


def numbers():
    return random.random(), np.random.rand(), float(torch.rand(()))


def test_derived_seeds():
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2**40, 3)]
    seeds = [derived_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**60
    assert derived_seed(1, 2) == 7764949442709860949  # a resumed run of an earlier version
    assert (SAMPLES, ITERATIONS) == (0, 1)


def test_seeded_restores_the_generators_also_after_an_error():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = numbers()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    inside = []
    for error in (None, RuntimeError):
        with suppress(RuntimeError), seeded(2**62):
            inside.append(numbers())
            if error:
                raise error
        assert numbers() == expected
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert inside[0] == inside[1]
    generator = torch.Generator().manual_seed(2**62 + 500)
    with seeded(2**62 + 500):  # NumPy takes 32 bits
        assert numbers() == (
            random.Random(2**62 + 500).random(),
            np.random.RandomState(500).rand(),
            float(torch.rand((), generator=generator)),
        )


def test_an_index_takes_its_seed_to_a_worker():
    index = pickle.loads(pickle.dumps(SeededIndex(3, 2**40)))
    assert (index, index.seed) == (3, 2**40)
    assert isinstance(index, SeededIndex)
    assert SeededIndex(3).seed == 0


def sampler(sample_seed=0, seed=5):
    return SeededSampler(
        dict(type='mmengine.DefaultSampler', shuffle=True), list(range(8)), seed, sample_seed
    )


def test_seeds_of_a_sampler(monkeypatch):
    """They depend on seed, rank, epoch and position; the order is that of the inner sampler."""
    one = sampler()
    first = list(one)
    assert len(one) == 8
    assert sorted(first) == list(range(8))
    assert first == list(one.sampler)
    seeds = [index.seed for index in first]
    assert seeds == [derived_seed(0, SAMPLES, 0, 0, position) for position in range(8)]
    assert first == list(sampler()) != list(sampler(seed=6))
    assert not set(seeds) & {index.seed for index in sampler(sample_seed=1)}
    one.set_epoch(1)
    assert list(one) != first
    assert not set(seeds) & {index.seed for index in one}
    monkeypatch.setattr('mobileone_mm.training.seeding.get_rank', lambda: 1)
    assert not set(seeds) & {index.seed for index in sampler()}


def test_a_skipped_part_does_not_shift_the_seeds():
    class Skipping:
        start = 0

        def __init__(self, dataset, seed):
            self.dataset = dataset

        def skip(self, count):
            self.start = count

        def __iter__(self):
            return iter(range(self.start, 8))

    assert not hasattr(sampler(), 'skip')
    whole, rest = (SeededSampler(dict(type=Skipping), list(range(8)), 0, 0) for _ in range(2))
    rest.skip(3)
    rest.set_epoch(0)  # this sampler has no set_epoch
    assert [(i, i.seed) for i in rest] == [(i, i.seed) for i in whole][3:]


class Draws:
    """Samples that are random numbers, or an error."""

    def __init__(self, error=None):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.error is not None:
            raise self.error
        assert type(index) is int
        return numbers()

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg', seg_map_path='' if index else '0.png')


def test_items_are_drawn_with_their_seeds():
    items = partial(load_samples, Draws())
    first = items([SeededIndex(0, 7), SeededIndex(1, 8)])
    assert items([SeededIndex(3, 8), SeededIndex(2, 7)]) == first[::-1]
    assert items([0]) != items([0])
    assert load_samples({'key': 1}, ['key']) == [1]


@pytest.mark.parametrize(
    ('error', 'index', 'line'),
    [
        (OSError('truncated'), 1, "^'1.jpg' cannot be loaded: truncated"),
        (SyntaxError('not a PNG'), 0, "^'0.jpg' with '0.png' cannot be loaded: not a PNG"),
        (Exception('Cannot find valid image after 9!'), 1, "^no sample .*; the first was '1.jpg'$"),
    ],
)
def test_samples_that_cannot_be_loaded(error, index, line):
    with pytest.raises(InputError, match=line):
        load_samples(Draws(error), [SeededIndex(index, 0)])


@pytest.mark.parametrize('error', [Exception('other'), KeyError('annot find valid image')])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as caught:
        load_samples(Draws(error), [0])
    assert caught.value is error


def test_a_dataset_without_names():
    class Plain(list):
        def __getitem__(self, index):
            raise OSError('broken')

    with pytest.raises(InputError, match='^sample 2 cannot be loaded'):
        load_samples(Plain([1]), [2])


def test_a_loader_uses_the_seeds():
    dataset = Draws()
    loader = DataLoader(dataset, batch_size=2, sampler=sampler(), collate_fn=list)
    seed_samples(loader)
    own = dataset.__getitems__
    assert own.func is load_samples
    seed_samples(loader)
    assert dataset.__getitems__ is own
