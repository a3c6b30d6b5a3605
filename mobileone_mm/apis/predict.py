"""Predicts images: drawings, label maps and a JSON file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log

from ..errors import InputError, one_line
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


@dataclass
class Predictions:
    """The result of :func:`predict`.

    Attributes:
        records: One dict for each image that was read, in the order of the inputs.
        unreadable: Images that could not be read, with the reason.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


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
) -> Predictions:
    """Predict images with a classifier, detector or segmentor.

    Writes ``predictions.json``, drawn images below ``vis`` and a segmentor's label maps below
    ``masks`` into the output folder. An image that cannot be read is left out and listed.

    Args:
        config: Path of the config.
        checkpoint: Path of the weights; they must be those of the config's model.
        inputs: Files, folders (searched with all folders below them) and patterns.
        out_dir: The output folder.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.
        score_thr: Lowest score of a box, 0 to 1.
        batch_size: How many images of the same size go through the model at once.
        cfg_options: Overrides by dotted key.
        no_vis: Do not draw.

    Raises:
        InputError: Anything that the user gave does not fit, or no image could be read.
    """
    if not 0 <= score_thr <= 1:
        raise InputError(f'--score-thr: got {score_thr}; expected 0 to 1')
    if batch_size < 1:
        raise InputError(f'--batch-size: got {batch_size}; expected at least 1')
    chosen = select_device(device)
    # A broken image is reported and left out, not replaced.
    cfg = prepare(config, cfg_options, PREDICT, stop_at_broken_images=True).cfg
    images = find_images(inputs, leave_out=[Path(out_dir, name) for name in ('vis', 'masks')])
    model, meta = init_model(cfg, checkpoint, chosen)
    load, pipeline = prediction_pipeline(cfg)
    check_writable(out_dir, '--out-dir')
    writer = _Writer(Path(out_dir), images, meta, score_thr, draw=not no_vis)
    result = writer.predictions
    for batch in _batches(images, load, pipeline, batch_size, result.unreadable):
        data = pseudo_collate([item.data for item in batch])
        with torch.no_grad():
            samples = model.test_step(data)  # type: ignore[operator]
        for item, sample in zip(batch, samples, strict=True):
            writer.add(item.index, item.image, sample)
    if not result.records:
        raise InputError(
            f'none of the {len(images)} images could be read; the first: '
            f'{next(iter(result.unreadable.values()))}'
        )
    writer.finish(config, checkpoint)
    return result


@dataclass
class _Item:
    index: int
    image: np.ndarray
    data: dict[str, Any]


def _batches(
    images: Sequence[Path],
    load: Any,
    pipeline: Compose,
    size: int,
    unreadable: dict[str, str],
) -> Iterator[list[_Item]]:
    """Read and prepare images; put neighbours of the same shape into one batch."""
    batch: list[_Item] = []
    for index, path in enumerate(with_progress(images, 'Predicting')):
        try:
            results = load(dict(img_path=str(path), img_id=index, sample_idx=index))
            image = _to_rgb(results['img'])
            item = _Item(index, image, pipeline(results))
        except _IMAGE_FAULTS as error:
            reason = one_line(error)
            reason = reason if str(path) in reason else f"image '{path}': {reason}"
            unreadable[str(path)] = reason
            print_log(f'Left out: {reason}', 'current', logging.WARNING)
            continue
        shape = item.data['inputs'].shape
        if batch and (len(batch) == size or batch[0].data['inputs'].shape != shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _to_rgb(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.uint8)  # copies: transforms change the original
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image[..., 2::-1]


class _Writer:
    """Collects predictions, and writes drawings, label maps and the JSON file."""

    def __init__(
        self, folder: Path, images: Sequence[Path], meta: dict, score_thr: float, draw: bool
    ) -> None:
        self.folder = folder
        self.images = images
        self.names = result_names(images)
        self.mask_names = with_suffix(self.names, '.png')
        self.classes = [str(name) for name in meta.get('classes') or ()]
        self.score_thr = score_thr
        self.painter = Painter(meta, score_thr) if draw else None
        self.predictions = Predictions()
        self.task: str | None = None

    def add(self, index: int, image: np.ndarray, sample: Any) -> None:
        self.task = task_of(sample)
        height, width = image.shape[:2]
        record = {'image': str(self.images[index]), 'width': width, 'height': height}
        record.update(record_of(sample, self.classes, self.score_thr))
        if self.task == 'segmentation':
            record['mask'] = self._mask(PurePath('masks') / self.mask_names[index], sample)
        if self.painter is not None:
            path = self.folder / 'vis' / self.names[index]
            path = save_image(self.painter.draw(np.ascontiguousarray(image), sample), path)
            record['drawn'] = path.relative_to(self.folder).as_posix()
        self.predictions.records.append(record)

    def _mask(self, name: PurePath, sample: Any) -> str:
        labels = label_map(sample)
        kind = np.uint8 if labels.max() < 256 else np.uint16
        content = cv2.imencode('.png', labels.astype(kind))[1].tobytes()
        atomic_write(self.folder / name, lambda file: file.write(content))
        return name.as_posix()

    def finish(self, config: str | Path, checkpoint: str | Path) -> None:
        table = {
            'config': str(config),
            'checkpoint': str(checkpoint),
            'task': self.task,
            'classes': self.classes,
            'score_thr': self.score_thr,
            'predictions': self.predictions.records,
            'unreadable': [
                {'image': name, 'reason': reason}
                for name, reason in self.predictions.unreadable.items()
            ],
        }
        atomic_text(self.folder / 'predictions.json', json.dumps(table, indent=1) + '\n')
