"""Predict images: drawings, label maps and a JSON file."""

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
from ..inference.predictions import label_map, record_of, task_of
from ..runs.prepare import PREDICT, prepare
from ..training.folders import check_writable
from ..training.launch import select_device

# what a broken image can raise in a pipeline; the others are predicted all the same
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
    ``masks`` into the output folder. An image that cannot be read is left out and listed. Returns the
    content of ``predictions.json``. An InputError says that an argument does not fit, or that no image
    could be read.

    Args:
        inputs: Files, folders (searched with all folders below them) and patterns.
        score_thr: Lowest score of a box, 0 to 1.
        batch_size: How many images of the same size go through the model at once.
    """
    if not 0 <= score_thr <= 1:
        raise InputError(f'--score-thr: got {score_thr}; expected 0 to 1')
    check_least(1, batch_size=batch_size)
    chosen, out = select_device(device), Path(out_dir).expanduser()
    # A broken image is reported and left out, not replaced.
    cfg = prepare(config, cfg_options, PREDICT, stop_at_broken_images=True).cfg
    images = find_images(inputs, leave_out=[out / 'vis', out / 'masks'])
    model, meta = init_model(cfg, checkpoint, chosen)
    load, pipeline = prediction_pipeline(cfg)
    check_writable(out, '--out-dir')
    writer = _Writer(out, images, meta, score_thr, draw=not no_vis)
    unreadable: list[dict[str, str]] = []
    with torch.no_grad():
        for paths, originals, data in _batches(images, load, pipeline, batch_size, unreadable):
            samples = model.test_step(pseudo_collate(data))  # type: ignore[operator]
            for row in zip(paths, originals, samples, strict=True):
                writer.add(*row)
    if not writer.records:
        first = unreadable[0]['reason']
        raise InputError(f'none of the {len(images)} images could be read; the first: {first}')
    table = dict(
        config=str(config), checkpoint=str(checkpoint), task=writer.task, classes=writer.classes,
        score_thr=score_thr, predictions=writer.records, unreadable=unreadable,
    )  # fmt: skip
    atomic_text(out / 'predictions.json', json.dumps(table, indent=1) + '\n')
    return table


def _batches(
    images: Sequence[Path],
    load: Any,
    pipeline: Compose,
    size: int,
    unreadable: list[dict[str, str]],
) -> Iterator[tuple[Sequence[Any], ...]]:
    """Read and prepare images; put neighbours of the same shape into one batch.

    Yields paths, RGB images and inputs of the model.
    """
    batch: list[tuple[Path, np.ndarray, dict[str, Any]]] = []
    for index, path in enumerate(with_progress(images, 'Predicting')):
        try:
            results = load(dict(img_path=str(path), img_id=index, sample_idx=index))
            image = results['img'].astype(np.uint8)  # copies: transforms change the original
            gray = image.ndim == 2
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if gray else image[..., 2::-1]
            data = pipeline(results)
        except _IMAGE_FAULTS as error:
            reason = one_line(error)
            reason = reason if str(path) in reason else f"image '{path}': {reason}"
            unreadable.append({'image': str(path), 'reason': reason})
            print_log(f'Left out: {reason}', 'current', logging.WARNING)
            continue
        shape = data['inputs'].shape
        if batch and (len(batch) == size or batch[0][2]['inputs'].shape != shape):
            yield tuple(zip(*batch, strict=True))
            batch = []
        batch.append((path, image, data))
    if batch:
        yield tuple(zip(*batch, strict=True))


class _Writer:
    """Writes the drawings and the label maps, and collects the records."""

    def __init__(
        self, folder: Path, images: Sequence[Path], meta: dict, score_thr: float, draw: bool
    ) -> None:
        self.folder, self.score_thr = folder, score_thr
        names = result_names(images)
        self.names = dict(zip(images, names, strict=True))
        self.mask_names = dict(zip(images, with_suffix(names, '.png'), strict=True))
        self.painter = Painter(meta, score_thr) if draw else None
        self.classes = [str(name) for name in meta.get('classes') or ()]
        self.records: list[dict[str, Any]] = []
        self.task: str | None = None

    def add(self, path: Path, image: np.ndarray, sample: Any) -> None:
        height, width = image.shape[:2]
        record = {'image': str(path), 'width': width, 'height': height}
        record |= record_of(sample, self.classes, self.score_thr)
        self.task = task_of(sample)
        if self.task == 'segmentation':
            labels, name = label_map(sample), PurePath('masks', self.mask_names[path])
            labels = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
            atomic_write(self.folder / name, cv2.imencode('.png', labels)[1].tobytes())
            record['mask'] = name.as_posix()
        if self.painter is not None:
            drawn = self.painter.draw(np.ascontiguousarray(image), sample)
            file = save_image(drawn, self.folder / 'vis' / self.names[path])
            record['drawn'] = file.relative_to(self.folder).as_posix()
        self.records.append(record)
