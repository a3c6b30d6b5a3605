"""Predict images: drawings, label maps and a JSON file."""

import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import print_log

from ..data.encoding import encode_image
from ..errors import InputError, check_least
from ..faults import any_fault, user_fault
from ..files import atomic_write, disk_is_full
from ..inference.draw import Painter, save_image
from ..inference.images import find_images, result_names, with_progress, with_suffix
from ..inference.model import init_model, prediction_pipeline
from ..inference.predictions import label_map, record_of, task_of
from ..inference.record_file import RecordFile
from ..runs.prepare import PREDICT, prepare
from ..training.folders import check_writable
from ..training.launch import select_device

# what a broken image can raise in a pipeline; the others are predicted all the same
_IMAGE_FAULTS = (OSError, ValueError, MemoryError, cv2.error)
# As many successive images with errors of other kinds show a fault of model, config or GPU.
_PATIENCE = 20


class _Item(NamedTuple):
    """An image of a batch: its path, its RGB pixels and the input of the model."""

    path: Path
    image: np.ndarray
    data: dict[str, Any]


class _Faults:
    """The images that are left out, and those without a drawing or label map."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.unreadable: list[dict[str, str]] = []
        self.undrawn: list[dict[str, str]] = []
        self._predicted = False  # whether an image is
        self._unexpected: list[Exception] = []  # since the last image that is predicted

    def lists(self) -> dict[str, Any]:
        """Return both lists for the file."""
        return dict(unreadable=self.unreadable, undrawn=self.undrawn)

    def left_out(self, path: Path, error: Exception) -> None:
        """Note an image that cannot be read or predicted; raise if the images are not the cause."""
        _raise_if_full(error)
        self._note(self.unreadable, path, error, 'Left out')
        if not (isinstance(error, _IMAGE_FAULTS) or user_fault(error)):
            traceback.clear_frames(error.__traceback__)  # the tensors need memory
            self._unexpected.append(error)
            if len(self._unexpected) == _PATIENCE:
                raise self._unexpected[0]

    def predicted(self) -> None:
        """Note that an image is predicted."""
        self._predicted = True
        self._unexpected.clear()

    def not_drawn(self, path: Path, error: Exception) -> None:
        """Note an image that is predicted, but cannot be drawn or written."""
        _raise_if_full(error)
        self._note(self.undrawn, path, error, 'Not drawn')

    def check(self) -> None:
        """Raise if no image could be predicted."""
        if self._predicted:
            return
        if self._unexpected:
            raise self._unexpected[0]
        first = self.unreadable[0]['reason']
        raise InputError(
            f'none of the {self.total} images could be read or predicted; the first: {first}'
        )

    @staticmethod
    def _note(to: list[dict[str, str]], path: Path, error: Exception, what: str) -> None:
        reason = any_fault(error)
        reason = reason if str(path) in reason else f"image '{path}': {reason}"
        to.append({'image': str(path), 'reason': reason})
        print_log(f'{what}: {reason}', 'current', logging.WARNING)


def _raise_if_full(error: Exception) -> None:
    if disk_is_full(error):  # the next image would not be written either
        raise error


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
    ``masks`` into the output folder. The file grows with each batch and is valid JSON all the time, so
    that a run that ends early loses one batch; it then has ``unfinished``. An image that cannot be
    read or predicted is left out (``unreadable``); one that cannot be drawn or whose label map cannot
    be written has its predictions (``undrawn``). Both are lists of ``image`` and ``reason``.

    Returns the content of ``predictions.json``. An InputError says that an argument does not fit, that
    no image could be predicted, or that the disk is full.

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
    faults = _Faults(len(images))
    writer = _Writer(out, images, meta, score_thr, not no_vis, faults)
    about = dict(config=str(config), checkpoint=str(checkpoint))
    file = RecordFile(out / 'predictions.json', 'predictions')
    records: list[dict[str, Any]] = []
    try:
        with torch.no_grad():
            for batch in _batches(images, load, pipeline, batch_size, faults):
                new = writer.write_batch(_samples(model, batch, faults))
                file.add(new, {**about, **writer.about()})
                records += new
        faults.check()
        file.finish(faults.lists())
    except BaseException as error:
        _end_early(file, faults, error)
        raise
    return {**about, **writer.about(), file.key: records, **faults.lists()}


def _end_early(file: RecordFile, faults: _Faults, error: BaseException) -> None:
    """Write what the file of an unfinished run can have, and say how many images it has."""
    with suppress(InputError):
        file.finish({**faults.lists(), 'unfinished': True})
    if file.count:
        held = f"'{file.path}' has the predictions of {file.count} of {faults.total} images"
        if disk_is_full(error):
            raise InputError(f'{any_fault(error)}; {held}') from error
        print_log(f'Stopped: {held}', 'current', logging.WARNING)


def _batches(
    images: Sequence[Path], load: Any, pipeline: Compose, size: int, faults: _Faults
) -> Iterator[list[_Item]]:
    """Read and prepare images; put neighbours of the same shape into one batch."""
    batch: list[_Item] = []
    for index, path in enumerate(with_progress(images, 'Predicting')):
        try:
            results = load(dict(img_path=str(path), img_id=index, sample_idx=index))
            image = results['img'].astype(np.uint8)  # copies: transforms change the original
            gray = image.ndim == 2
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if gray else image[..., 2::-1]
            data = pipeline(results)
            shape = data['inputs'].shape
        except Exception as error:
            faults.left_out(path, error)
            continue
        if batch and (len(batch) == size or batch[0].data['inputs'].shape != shape):
            yield batch
            batch = []
        batch.append(_Item(path, image, data))
    if batch:
        yield batch


def _samples(
    model: Any, batch: list[_Item], faults: _Faults
) -> Iterator[tuple[Path, np.ndarray, Any]]:
    """Yield path, image and predicted sample; after an error of a batch predict each image alone."""
    try:
        samples = model.test_step(pseudo_collate([item.data for item in batch]))
    except Exception as error:
        samples = None
        if len(batch) == 1:
            faults.left_out(batch[0].path, error)
    if samples is not None:
        for item, sample in zip(batch, samples, strict=True):
            yield item.path, item.image, sample
    elif len(batch) > 1:
        for item in batch:
            yield from _samples(model, [item], faults)


class _Writer:
    """Writes the drawings and the label maps of images, and makes their records."""

    def __init__(
        self,
        folder: Path,
        images: Sequence[Path],
        meta: dict,
        score_thr: float,
        draw: bool,
        faults: _Faults,
    ) -> None:
        self.folder, self.score_thr, self.faults = folder, score_thr, faults
        names = result_names(images)
        self.names = dict(zip(images, names, strict=True))
        self.mask_names = dict(zip(images, with_suffix(names, '.png'), strict=True))
        self.painter = Painter(meta, score_thr) if draw else None
        self.classes = [str(name) for name in meta.get('classes') or ()]
        self.task: str | None = None

    def about(self) -> dict[str, Any]:
        """Return what all images have in common."""
        return dict(task=self.task, classes=self.classes, score_thr=self.score_thr)

    def write_batch(self, rows: Iterable[tuple[Path, np.ndarray, Any]]) -> list[dict[str, Any]]:
        """Write the files of a batch and return the records of the images that are not left out."""
        return [record for row in rows if (record := self._write(*row)) is not None]

    def _write(self, path: Path, image: np.ndarray, sample: Any) -> dict[str, Any] | None:
        height, width = image.shape[:2]
        record = {'image': str(path), 'width': width, 'height': height}
        try:
            record |= record_of(sample, self.classes, self.score_thr)
        except Exception as error:
            self.faults.left_out(path, error)
            return None
        self.task = task_of(sample)
        self.faults.predicted()
        for key, write in (('mask', self._mask), ('drawn', self._drawing)):
            try:
                file = write(path, image, sample)
            except Exception as error:
                self.faults.not_drawn(path, error)
            else:
                record |= {} if file is None else {key: file.as_posix()}
        return record

    def _mask(self, path: Path, _: np.ndarray, sample: Any) -> PurePath | None:
        if self.task != 'segmentation':
            return None
        labels, name = label_map(sample), PurePath('masks', self.mask_names[path])
        labels = labels.astype(np.uint8 if labels.max() < 256 else np.uint16)
        atomic_write(self.folder / name, encode_image(labels, '.png'))
        return name

    def _drawing(self, path: Path, image: np.ndarray, sample: Any) -> PurePath | None:
        if self.painter is None:
            return None
        drawn = self.painter.draw(np.ascontiguousarray(image), sample)
        file = save_image(drawn, self.folder / 'vis' / self.names[path])
        return file.relative_to(self.folder)
