"""Predictions of the three tasks as plain data for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    or the five best classes as ``top``; or the number of ``pixels`` by class. The predictions of the
    sample are at the size of the image.
    """
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
        x1, y1, x2, y2 = (float(value) for value in instances.bboxes[index])
        box: dict[str, Any] = {'bbox': [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]}
        box.update(_scored(instances.labels[index], instances.scores[index], classes))
        if 'masks' in instances:
            box['segmentation'] = _run_lengths(instances.masks[index])
        boxes.append(box)
    return boxes


def _run_lengths(mask: Any) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(np.asarray(mask), dtype=np.uint8))
    return {'size': [int(side) for side in code['size']], 'counts': code['counts'].decode()}
