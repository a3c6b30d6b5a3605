"""Predictions of the three tasks as plain data for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

TASKS = ('classification', 'detection', 'segmentation')


def task_of(sample: Any) -> str | None:
    """Which task a predicted sample of one of the hosts belongs to."""
    if 'pred_instances' in sample:
        return 'detection'
    if 'pred_sem_seg' in sample:
        return 'segmentation'
    return 'classification' if 'pred_score' in sample else None


def record_of(sample: Any, classes: list[str] | None, score_thr: float) -> dict[str, Any]:
    """What a model says about one image.

    Args:
        sample: A sample with predictions, at the size of the image.
        classes: Names of the classes by label.
        score_thr: Lowest score of a box.

    Returns:
        ``boxes`` as COCO has them (x, y, width, height in pixels), best first; or the five best
        classes as ``top``; or the number of ``pixels`` by class.
    """
    task = task_of(sample)
    if task == 'detection':
        return {'boxes': _boxes(sample.pred_instances, classes, score_thr)}
    if task == 'classification':
        return {'top': _top(sample.pred_score, classes)}
    if task == 'segmentation':
        return {'pixels': _pixels(label_map(sample), classes)}
    return {}


def label_map(sample: Any) -> np.ndarray:
    """The predicted class of every pixel, height x width."""
    data = sample.pred_sem_seg.data
    return np.asarray(data.cpu() if hasattr(data, 'cpu') else data).squeeze(0)


def class_name(classes: list[str] | None, label: int) -> str:
    """Name of a class; its number where there is no name."""
    return classes[label] if classes and label < len(classes) else f'class {label}'


def _boxes(instances: Any, classes: list[str] | None, score_thr: float) -> list[dict[str, Any]]:
    instances = instances.cpu()
    boxes = []
    for index in instances.scores.argsort(descending=True, stable=True).tolist():
        score = float(instances.scores[index])
        if score < score_thr:
            break
        label = int(instances.labels[index])
        x1, y1, x2, y2 = (float(value) for value in instances.bboxes[index])
        box = {
            'bbox': [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            'label': label,
            'category': class_name(classes, label),
            'score': round(score, 5),
        }
        if 'masks' in instances:
            box['segmentation'] = _run_lengths(instances.masks[index])
        boxes.append(box)
    return boxes


def _run_lengths(mask: Any) -> dict[str, Any]:
    from pycocotools import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(np.asarray(mask), dtype=np.uint8))
    return {'size': [int(side) for side in code['size']], 'counts': code['counts'].decode()}


def _top(score: Any, classes: list[str] | None, count: int = 5) -> list[dict[str, Any]]:
    values, labels = score.float().cpu().topk(min(count, score.numel()))
    return [
        {'label': label, 'category': class_name(classes, label), 'score': round(value, 5)}
        for value, label in zip(values.tolist(), labels.tolist(), strict=True)
    ]


def _pixels(labels: np.ndarray, classes: list[str] | None) -> dict[str, int]:
    found, counts = np.unique(labels, return_counts=True)
    return {class_name(classes, int(label)): int(n) for label, n in zip(found, counts, strict=True)}
