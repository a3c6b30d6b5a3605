"""Counting right predictions, with predictions limited to the classes of a set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .layouts import Images


@torch.no_grad()
def count_right(
    model: nn.Module,
    batches: Iterable[Any],
    limit: Sequence[int] | None = None,
    classes: int | None = None,
) -> tuple[int, int]:
    """How many images a classifier gets right with its first, and with its first five predictions.

    mmpretrain's ``Accuracy`` has no way to leave classes out. ImageNet-A and ImageNet-R are defined
    by the greatest of the scores of their own 200 classes; a prediction of another class does not
    count as wrong, it cannot be made.

    Args:
        model: A classifier of mmpretrain's, in evaluation mode.
        batches: Batches as its data loader makes them.
        limit: Predictions are limited to these classes; None for all.
        classes: How many scores it must give; None for any number.

    Raises:
        InputError: It gives another number of scores, or none.
    """
    top1 = top5 = 0
    for batch in batches:
        data = model.data_preprocessor(batch, False)  # type: ignore[operator]
        # Not the predicted scores: a softmax over all classes can leave nothing to those of a set.
        logits = model(data['inputs'], mode='tensor')
        if not (isinstance(logits, Tensor) and logits.ndim == 2):
            raise InputError('model: gives no score for each class; an image classifier is needed')
        if classes is not None and logits.shape[1] != classes:
            raise InputError(f'model: gives {logits.shape[1]} scores, {classes} are expected')
        if limit is not None:
            allowed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            allowed[list(limit)] = True
            logits = logits.masked_fill(~allowed, -torch.inf)
        labels = torch.cat([sample.gt_label for sample in data['data_samples']]).to(logits.device)
        hit = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        top1 += int(hit[:, 0].sum())
        top5 += int(hit.sum())
    return top1, top5


def own_images(dataset: Any) -> Images:
    """Images and labels of a dataset of mmpretrain's.

    Raises:
        InputError: It is empty, or an image has no single label.
    """
    rows = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not rows or not all(isinstance(row.get('gt_label'), int) for row in rows):
        raise InputError('test_dataloader.dataset: has no images with one label each')
    files = tuple(str(row['img_path']) for row in rows)
    base = os.path.commonpath([os.path.dirname(file) for file in files]) or '.'
    names = tuple(Path(os.path.relpath(file, base)).as_posix() for file in files)
    return Images(files, tuple(row['gt_label'] for row in rows), names)
