"""Correct predictions of a classifier, with predictions limited to the classes of a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError


@torch.no_grad()
def count_correct(
    model: nn.Module,
    batches: Iterable[Any],
    limit: Sequence[int] | None = None,
    classes: int | None = None,
) -> tuple[int, int]:
    """Count images whose class is the first, and among the first five, predictions of a classifier.

    ``Accuracy`` of mmpretrain cannot leave classes out. ImageNet-A and ImageNet-R are defined by the
    greatest score among their own 200 classes: other classes cannot be predicted.

    Args:
        limit: Predictions are limited to these classes; None for all.
        classes: Number of scores that the model must give; None for any number.

    Raises:
        InputError: The model gives another number of scores, or none.
    """
    top1 = top5 = 0
    for batch in batches:
        data = model.data_preprocessor(batch, False)  # type: ignore[operator]
        # Logits: a softmax over all classes can leave no probability for those of a set.
        logits = model(data['inputs'], mode='tensor')
        if not (isinstance(logits, Tensor) and logits.ndim == 2):
            raise InputError('model: gives no score for each class; expected an image classifier')
        if classes is not None and logits.shape[1] != classes:
            raise InputError(f'model: gives {logits.shape[1]} scores; expected {classes}')
        if limit is not None:
            allowed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            allowed[list(limit)] = True
            logits = logits.masked_fill(~allowed, -torch.inf)
        labels = torch.cat([sample.gt_label for sample in data['data_samples']]).to(logits.device)
        hit = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        top1 += int(hit[:, 0].sum())
        top5 += int(hit.sum())
    return top1, top5
