"""Predictions of the three tasks as plain data for JSON."""

from typing import Any

import numpy as np
from torch import Tensor

from ..errors import NON_FINITE, InputError

TASKS = {
    'pred_instances': 'detection',
    'pred_sem_seg': 'segmentation',
    'pred_score': 'classification',
}
# Scores and boxes by field of a sample. A label map shows no NaN: mmseg takes the greatest score.
_NUMBERS = {'pred_score': (), 'pred_instances': ('scores', 'bboxes'), 'seg_logits': ('data',)}


def task_of(sample: Any) -> str | None:
    """Return the task of a predicted sample of one of the hosts."""
    return next((task for field, task in TASKS.items() if field in sample), None)


def record_of(sample: Any, classes: list[str] | None, score_thr: float) -> dict[str, Any]:
    """Return the predictions for one image.

    Returns ``boxes`` of at least ``score_thr`` as in COCO (x, y, width, height in pixels), best first;
    or the five best classes as ``top``; or the number of ``pixels`` by class. InputError as in
    :func:`check_finite`; JSON cannot hold NaN or Inf.
    """
    check_finite(sample)
    task = task_of(sample)
    if task == 'detection':
        return {'boxes': _boxes(sample.pred_instances.cpu(), classes, score_thr)}
    if task == 'classification':
        values, labels = sample.pred_score.float().cpu().topk(min(5, sample.pred_score.numel()))
        return {'top': [_scored(*row, classes) for row in zip(labels, values, strict=True)]}
    if task == 'segmentation':
        found, counts = np.unique(label_map(sample), return_counts=True)
        pixels = zip(found.tolist(), counts.tolist(), strict=True)
        return {'pixels': {class_name(classes, label): count for label, count in pixels}}
    return {}


def check_finite(sample: Any) -> None:
    """Raise an InputError if the scores or boxes of a predicted sample hold NaN or Inf."""
    for field, keys in _NUMBERS.items():
        found = sample.get(field)
        for value in (found.get(key) for key in keys) if keys and found is not None else (found,):
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise InputError(f'the model predicts {NON_FINITE}')


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
