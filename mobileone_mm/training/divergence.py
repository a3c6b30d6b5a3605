"""Diverged runs: which tensors hold NaN or Inf, and the line that ends such a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from ..errors import InputError
from .run_model import unwrapped

_ADVICE = (
    'lower optim_wrapper.optimizer.lr, use a longer warm-up, set or lower optim_wrapper.clip_grad, '
    'or check the images and labels'
)


def non_finite_tensors(runner: Any) -> list[str]:
    """Return the names of the tensors with NaN or Inf that a checkpoint of a run would hold.

    These are the weights and buffers of the model and of its averages. The values are tested on their
    device, and one transfer brings all results.
    """
    names, flags = [], []
    for suffix, model in _models(runner):
        for name, tensor in model.state_dict().items():
            if isinstance(tensor, torch.Tensor) and tensor.dtype.is_floating_point:
                names.append(f"'{name}'{suffix}")
                flags.append(torch.isfinite(tensor).all())
    finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist() if flags else []
    return [name for name, is_finite in zip(names, finite, strict=True) if not is_finite]


def check_weights(runner: Any, together: bool = True) -> None:
    """End a run whose weights, buffers or averages hold NaN or Inf.

    Tensors that were not finite when the training began stay allowed, such as a mask of -Inf.

    Args:
        together: Whether all processes call this function. They then end together, although each has
            its own BN statistics.

    Raises:
        InputError: Names the first such tensor.
    """
    allowed = getattr(runner, 'non_finite_at_start', ())
    found = [name for name in non_finite_tensors(runner) if name not in allowed]
    if together:
        found = first_of_all(found)
    if found:
        others = f' and {len(found) - 1} more tensors' if len(found) > 1 else ''
        advice = f'these weights are not saved; {_ADVICE}'
        raise diverged(runner, f'NaN or Inf in {found[0]}{others}', 'after', advice)


def first_of_all(found: list[str]) -> list[str]:
    """Return the list of the first process whose list is not empty; all processes must call this."""
    return next(filter(None, all_gather_object(found)), [])


def diverged(runner: Any, what: str, when: str = 'in', advice: str = _ADVICE) -> InputError:
    """Return the error that ends a diverged run.

    It says what was found and when, the learning rate, what to do, and which checkpoint is the last.
    """
    info = runner.message_hub.runtime_info  # runner.iter counts on between the hooks
    place = f'iteration {info.get("iter", runner.iter) + 1}'
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        place += f' (epoch {info.get("epoch", runner.epoch) + 1})'
    # That of the config, before the factors of paramwise_cfg.
    rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
    return InputError(
        f'{what} {when} {place}, at the learning rate {rate:g}; {advice}; '
        f'{_last_checkpoint(runner)}'
    )


def _models(runner: Any) -> Iterator[tuple[str, nn.Module]]:
    yield '', unwrapped(runner.model)
    for hook in runner.hooks:
        average = getattr(hook, 'ema_model', None)
        if isinstance(average, nn.Module):
            yield f' of {type(hook).__name__}', average


def _last_checkpoint(runner: Any) -> str:
    """Say which checkpoint remains. Our Runner never writes one with NaN."""
    started = runner._load_from if runner._resume else None
    info = runner.message_hub.runtime_info
    best = [info[key] for key in sorted(info) if key.startswith('best_ckpt')]
    for path in (info.get('last_ckpt'), started, *best):
        if path and ('://' in str(path) or Path(path).is_file()):
            return f"the last checkpoint without NaN is '{path}'"
    return 'no checkpoint was written yet'
