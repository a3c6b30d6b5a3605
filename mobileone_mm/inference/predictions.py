"""Predictions of the three tasks as plain data for JSON."""

from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError

TASKS = {
    'pred_instances': 'detection',
    'pred_sem_seg': 'segmentation',
    'pred_score': 'classification',
}


def task_of(sample: Any) -> str | None:
    """Return the task of a predicted sample of one of the hosts."""
    return next((task for field, task in TASKS.items() if field in sample), None)


def record_of(sample: Any, classes: list[str] | None, score_thr: float) -> dict[str, Any]:
    """Return the predictions for one image.

    Returns ``boxes`` of at least ``score_thr`` as in COCO (x, y, width, height in pixels), best first;
    or the five best classes as ``top``; or the number of ``pixels`` by class. InputError if they are
    NaN or infinite, which JSON cannot hold.
    """
    task = task_of(sample)
    if task == 'detection':
        _check_finite(sample.pred_instances.scores, sample.pred_instances.bboxes)
        return {'boxes': _boxes(sample.pred_instances.cpu(), classes, score_thr)}
    if task == 'classification':
        _check_finite(sample.pred_score)
        values, labels = sample.pred_score.float().cpu().topk(min(5, sample.pred_score.numel()))
        return {'top': [_scored(*row, classes) for row in zip(labels, values, strict=True)]}
    if task == 'segmentation':
        found, counts = np.unique(label_map(sample), return_counts=True)
        pixels = zip(found.tolist(), counts.tolist(), strict=True)
        return {'pixels': {class_name(classes, label): count for label, count in pixels}}
    return {}


def _check_finite(*values: Tensor) -> None:
    if not all(value.isfinite().all() for value in values):
        raise InputError('the model predicts NaN or Inf; check its weights')


def label_map(sample: Any) -> np.ndarray:
    """Return the predicted class of every pixel, height x width."""
    data = sample.pred_sem_seg.data
    return np.asarray(data.cpu() if hasattr(data, 'cpu') else data).squeeze(0)


def class_name(classes: list[str] | None, label: int) -> str:
    """Return the name of a class, or its number where there is no name."""
    return classes[label] if classes and label < len(classes) else f'class {label}'


def _scored(label: Any, score: Any, classes: list[str] | None) -> dict[str, Any]:
    name = class_name(classes, int(label))
    return {'label': int(label), 'category': name, 'score': round(float(score), 5)}


def _boxes(instances: Any, classes: list[str] | None, score_thr: float) -> list[dict[str, Any]]:
    boxes = []
    for index in instances.scores.argsort(descending=True, stable=True).tolist():
        if float(instances.scores[index]) < score_thr:
            break
        x1, y1, x2, y2 = instances.bboxes[index].tolist()
        box: dict[str, Any] = {'bbox': [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]}
        box |= _scored(instances.labels[index], instances.scores[index], classes)
        if 'masks' in instances:
            from pycocotools import mask as coco_mask

            mask = np.asfortranarray(instances.masks[index], dtype=np.uint8)
            code = coco_mask.encode(mask)
            box['segmentation'] = {**code, 'counts': code['counts'].decode()}
        boxes.append(box)
    return boxes
