"""Randomness as a function of the seed and the position in the run, so that a resumed run is exact.

mmengine stores no random state in its checkpoints and seeds its data-loader workers once, when they
start. After a resume the workers start again from the beginning, so that augmentation (and with it
every weight) differs from the unbroken run; without persistent workers every epoch repeats the
augmentation of the first. Storing states would need one per rank and worker, and the states inside
running workers cannot be had. Here nothing is stored: each sample's and each iteration's generators
are seeded from (seed, rank, epoch, position), which a resumed run knows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import DataLoader, Sampler

from ..errors import InputError
from ..registry import HOOKS

# Keeps the streams of samples and of iterations apart where their numbers agree.
_SAMPLES, _ITERATIONS = 0, 1


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed from non-negative integers; different integers give unrelated seeds."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with Python's, NumPy's and torch's CPU generators seeded, then put them back."""
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
    # Not torch.manual_seed: before CUDA starts, that records a stack trace at every call.
    torch.default_generator.manual_seed(seed)


class SeededIndex(int):
    """The index of a sample that carries the seed of its augmentation to the worker."""

    seed: int

    def __new__(cls, index: int, seed: int) -> SeededIndex:
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (int(self), self.seed)


class SeededSampler(Sampler):
    """A sampler around another one that gives every index its seed.

    Args:
        sampler: Config of the sampler that decides the order.
        dataset: The dataset, handed on to it.
        seed: Seed of the order, handed on to it.
        sample_seed: Seed of the augmentation.
    """

    def __init__(self, sampler: dict, dataset: Sized, seed: int | None, sample_seed: int) -> None:
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self.sample_seed = sample_seed
        self.rank = get_rank()
        self.epoch = 0
        self._start = 0
        if hasattr(self.sampler, 'skip'):
            # OneDL's loop looks for this method to find its place after a resume.
            self.skip = self._skip

    def __iter__(self) -> Iterator[SeededIndex]:
        for position, index in enumerate(self.sampler, self._start):
            key = (self.sample_seed, _SAMPLES, self.rank, self.epoch, position)
            yield SeededIndex(index, derived_seed(*key))

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler which epoch comes next; order and augmentation depend on it."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        self.sampler.skip(num_samples)
        self._start = num_samples


class SeededItems:
    """Fetches a batch of samples, each under the seed that its index carries.

    torch's loader asks a dataset for ``__getitems__`` before it falls back on one index at a time;
    as an attribute of the dataset it leaves its class, its wrappers and its pipeline alone.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        try:
            if not isinstance(index, SeededIndex):
                return self.dataset[index]
            with seeded(index.seed):
                return self.dataset[int(index)]
        except (OSError, SyntaxError) as error:
            # What Pillow raises for a broken mask names no file.
            raise InputError(f'{self._name(int(index))} cannot be loaded: {error}') from error
        except Exception as error:
            # mmengine has no class of its own for a dataset in which it finds nothing to load.
            if type(error) is Exception and 'annot find valid image' in str(error):
                raise InputError(
                    'no sample could be loaded, however many were tried; the log names the files'
                ) from error
            raise

    def _name(self, index: int) -> str:
        info = self.dataset.get_data_info(index) if hasattr(self.dataset, 'get_data_info') else {}
        files = [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]
        return ' with '.join(f"'{file}'" for file in files) or f'sample {index}'


def seed_samples(dataloader: DataLoader) -> None:
    """Make a loader's dataset honour the seeds of :class:`SeededSampler`."""
    dataset = dataloader.dataset
    if not hasattr(dataset, '__getitems__'):
        dataset.__getitems__ = SeededItems(dataset)  # type: ignore[attr-defined]


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seeds the generators of the main process before every training iteration.

    What a model draws (dropout, batch augmentation) then depends on the seed and the iteration
    alone, neither on the validation before it nor on a resume. Ranks share the stream unless
    ``randomness.diff_rank_seed`` is set, as mmengine has it.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        # runner.seed contains the rank if the ranks are to differ.
        seed = derived_seed(runner.seed, _ITERATIONS, runner.iter)
        seed_cpu(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
