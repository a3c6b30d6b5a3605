"""Predict images: drawings, label maps and a JSON file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log

from ..errors import InputError, check_least, one_line
from ..files import atomic_text, atomic_write
from ..inference.draw import Painter, save_image
from ..inference.images import find_images, result_names, with_progress, with_suffix
from ..inference.model import init_model, prediction_pipeline
from ..inference.records import label_map, record_of, task_of
from ..runs.prepare import PREDICT, prepare
from ..training.folders import check_writable
from ..training.launch import select_device

# What one broken image can raise in a pipeline; the others are predicted all the same.
_IMAGE_FAULTS = (OSError, ValueError, cv2.error)


def predict(
    config: str | Path,
    checkpoint: str | Path,
    inputs: Sequence[str],
    out_dir: str | Path,
    device: str | None = None,
    score_thr: float = 0.3,
    batch_size: int = 1,
    cfg_options: Mapping[str, Any] | None = None,
    no_vis: bool = False,
) -> dict[str, Any]:
    """Predict images with a classifier, detector or segmentor.

    Writes ``predictions.json``, drawn images below ``vis`` and a segmentor's label maps below
    ``masks`` into the output folder. An image that cannot be read is left out and listed.

    Args:
        inputs: Files, folders (searched with all folders below them) and patterns.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.
        score_thr: Lowest score of a box, 0 to 1.
        batch_size: How many images of the same size go through the model at once.
        no_vis: Do not draw.

    Returns:
        The content of ``predictions.json``.

    Raises:
        InputError: Anything that the user gave does not fit, or no image could be read.
    """
    if not 0 <= score_thr <= 1:
        raise InputError(f'--score-thr: got {score_thr}; expected 0 to 1')
    check_least(1, batch_size=batch_size)
    chosen = select_device(device)
    # A broken image is reported and left out, not replaced.
    cfg = prepare(config, cfg_options, PREDICT, stop_at_broken_images=True).cfg
    images = find_images(inputs, leave_out=[Path(out_dir, name) for name in ('vis', 'masks')])
    model, meta = init_model(cfg, checkpoint, chosen)
    load, pipeline = prediction_pipeline(cfg)
    check_writable(out_dir, '--out-dir')
    writer = _Writer(Path(out_dir), images, meta, score_thr, draw=not no_vis)
    records: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for batch in _batches(images, load, pipeline, batch_size, unreadable):
        with torch.no_grad():
            samples = model.test_step(pseudo_collate([data for *_, data in batch]))  # type: ignore[operator]
        for (path, image, _), sample in zip(batch, samples, strict=True):
            records.append(writer.write(path, image, sample))
    if not records:
        raise InputError(
            f'none of the {len(images)} images could be read; the first: '
            f'{next(iter(unreadable.values()))}'
        )
    table = {
        'config': str(config),
        'checkpoint': str(checkpoint),
        'task': task_of(sample),
        'classes': writer.classes,
        'score_thr': score_thr,
        'predictions': records,
        'unreadable': [{'image': name, 'reason': why} for name, why in unreadable.items()],
    }
    atomic_text(Path(out_dir, 'predictions.json'), json.dumps(table, indent=1) + '\n')
    return table


def _batches(
    images: Sequence[Path], load: Any, pipeline: Compose, size: int, unreadable: dict[str, str]
) -> Iterator[list[tuple[Path, np.ndarray, dict[str, Any]]]]:
    """Read and prepare images; put neighbours of the same shape into one batch."""
    batch: list[tuple[Path, np.ndarray, dict[str, Any]]] = []
    for index, path in enumerate(with_progress(images, 'Predicting')):
        try:
            results = load(dict(img_path=str(path), img_id=index, sample_idx=index))
            image = _to_rgb(results['img'])
            data = pipeline(results)
        except _IMAGE_FAULTS as error:
            reason = one_line(error)
            reason = reason if str(path) in reason else f"image '{path}': {reason}"
            unreadable[str(path)] = reason
            print_log(f'Left out: {reason}', 'current', logging.WARNING)
            continue
        shape = data['inputs'].shape
        if batch and (len(batch) == size or batch[0][2]['inputs'].shape != shape):
            yield batch
            batch = []
        batch.append((path, image, data))
    if batch:
        yield batch


def _to_rgb(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.uint8)  # copies: transforms change the original
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image[..., 2::-1]


class _Writer:
    """Writes the drawing and the label map of an image, and returns its record."""

    def __init__(
        self, folder: Path, images: Sequence[Path], meta: dict, score_thr: float, draw: bool
    ) -> None:
        self.folder, self.score_thr = folder, score_thr
        names = result_names(images)
        self.names = dict(zip(images, names, strict=True))
        self.mask_names = dict(zip(images, with_suffix(names, '.png'), strict=True))
        self.classes = [str(name) for name in meta.get('classes') or ()]
        self.painter = Painter(meta, score_thr) if draw else None

    def write(self, path: Path, image: np.ndarray, sample: Any) -> dict[str, Any]:
        height, width = image.shape[:2]
        record = {'image': str(path), 'width': width, 'height': height}
        record |= record_of(sample, self.classes, self.score_thr)
        if task_of(sample) == 'segmentation':
            record['mask'] = self._mask(PurePath('masks') / self.mask_names[path], sample)
        if self.painter is not None:
            drawn = self.painter.draw(np.ascontiguousarray(image), sample)
            file = save_image(drawn, self.folder / 'vis' / self.names[path])
            record['drawn'] = file.relative_to(self.folder).as_posix()
        return record

    def _mask(self, name: PurePath, sample: Any) -> str:
        labels = label_map(sample)
        kind = np.uint8 if labels.max() < 256 else np.uint16
        content = cv2.imencode('.png', labels.astype(kind))[1].tobytes()
        atomic_write(self.folder / name, lambda file: file.write(content))
        return name.as_posix()
