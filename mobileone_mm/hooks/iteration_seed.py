"""A hook that seeds the main process before every training iteration."""

from typing import Any

import torch
from mmengine.hooks import Hook

from ..registry import HOOKS
from ..training.seeding import ITERATIONS, derived_seed, seed_cpu


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed the random generators of the main process before every training iteration.

    What a model draws (dropout, batch augmentation) then depends on the seed and the iteration alone,
    not on the validation before it or on a resume. All ranks draw the same numbers unless
    ``randomness.diff_rank_seed`` is set, as in mmengine. The Runner of this package has the hook by
    default.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        # runner.seed contains the rank if diff_rank_seed is set.
        seed = derived_seed(runner.seed, ITERATIONS, runner.iter)
        seed_cpu(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
