"""Random numbers as a function of the seed and the position in the run, so that a resume is exact.

mmengine stores no random state in its checkpoints and seeds its data-loader workers once, when they
start: after a resume the augmentation differs from the uninterrupted run, and without persistent
workers every epoch repeats the augmentation of the first one. Here the generators of each sample and
each iteration are seeded from (seed, rank, epoch, position), which a resumed run knows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Sampler

from ..errors import InputError

# The first part of a seed: samples and iterations with the same numbers get different seeds.
SAMPLES, ITERATIONS = 0, 1


def derived_seed(*numbers: int) -> int:
    """Return a 63-bit seed for non-negative integers. Other numbers give an independent seed."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators for a block, then restore their states."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_cpu(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_cpu(seed: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: before CUDA starts, it records a stack trace at every call.
    torch.default_generator.manual_seed(seed)


class SeededIndex(int):
    """The index of a sample that carries the seed of its augmentation to a worker."""

    seed: int

    def __new__(cls, index: int, seed: int = 0) -> SeededIndex:  # pickle gives the index alone
        self = super().__new__(cls, index)
        self.seed = seed
        return self


class SeededSampler(Sampler):
    """Add a seed of the augmentation to every index of another sampler, which is a config."""

    def __init__(self, sampler: dict, dataset: Sized, seed: int | None, sample_seed: int) -> None:
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self.sample_seed = sample_seed
        self.rank = get_rank()
        self.epoch = 0
        self._start = 0
        if hasattr(self.sampler, 'skip'):
            # OneDL's train loop calls this method to continue in the middle of an epoch.
            self.skip = self._skip

    def __iter__(self) -> Iterator[SeededIndex]:
        for position, index in enumerate(self.sampler, self._start):
            key = (self.sample_seed, SAMPLES, self.rank, self.epoch, position)
            yield SeededIndex(index, derived_seed(*key))

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; order and augmentation depend on it."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        self.sampler.skip(num_samples)
        self._start = num_samples


def load_samples(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """Load a batch of samples, each with the seed that its index carries."""
    return [_load(dataset, index) for index in indices]


def _load(dataset: Any, index: int) -> Any:
    seed = getattr(index, 'seed', None)
    try:
        with nullcontext() if seed is None else seeded(seed):
            return dataset[index if seed is None else int(index)]
    except (OSError, SyntaxError) as error:  # Pillow's about a broken mask do not name the file
        raise InputError(f'{_name_of(dataset, index)} cannot be loaded: {error}') from error
    except Exception as error:
        # mmengine raises a plain Exception if it can load none of many samples.
        if type(error) is Exception and 'annot find valid image' in str(error):
            name = _name_of(dataset, index)
            raise InputError(f'no sample of many could be loaded; the first was {name}') from error
        raise


def _name_of(dataset: Any, index: int) -> str:
    info: dict = getattr(dataset, 'get_data_info', lambda _: {})(int(index))
    files = [f"'{info[key]}'" for key in ('img_path', 'seg_map_path') if info.get(key)]
    return ' with '.join(files) or f'sample {int(index)}'


def seed_samples(dataloader: DataLoader) -> None:
    """Make the dataset of a loader use the seeds of :class:`SeededSampler`.

    torch's loader calls ``__getitems__`` of a dataset if there is one. As an attribute of the dataset
    object it leaves the class, the wrappers and the pipeline unchanged.
    """
    dataset: Any = dataloader.dataset
    if not hasattr(dataset, '__getitems__'):
        dataset.__getitems__ = partial(load_samples, dataset)
