"""Drawing predictions with the hosts' visualizers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import VISUALIZERS

from ..weights.writing import atomic_write
from .pictures import result_names
from .records import class_name, label_map, task_of

_VISUALIZERS = {
    'classification': dict(type='mmpretrain.UniversalVisualizer'),
    'detection': dict(type='mmdet.DetLocalVisualizer', line_width=2),
    # mmseg's default hides the picture.
    'segmentation': dict(type='mmseg.SegLocalVisualizer', alpha=0.5),
}
_JPEG = ('.jpg', '.jpeg')
# Text on smaller pictures cannot be read.
_SMALLEST_SIDE = 320
_numbers = count()


class Painter:
    """Draws what a model says onto pictures, for all three tasks.

    Args:
        meta: ``classes`` and, if there is one, ``palette`` of the data set.
        score_thr: Lowest score of a box that is drawn.
    """

    def __init__(self, meta: dict[str, Any], score_thr: float = 0.3) -> None:
        self.classes = list(meta['classes']) if meta.get('classes') else None
        self.palette = meta.get('palette')
        self.score_thr = score_thr
        self._visualizers: dict[str, Any] = {}

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        """Draw the predictions of a sample.

        Args:
            image: The picture, height x width x 3, RGB, 8 bits.
            sample: The sample, with predictions at the picture's size.

        Returns:
            A picture of the same form; pictures of classifiers may be larger.
        """
        task = task_of(sample)
        if task == 'detection':
            return self._boxes(image, sample)
        if task == 'classification':
            return self._class(image, sample)
        if task == 'segmentation':
            return self._areas(image, sample)
        return image

    def _visualizer(self, task: str) -> Any:
        if task not in self._visualizers:
            # mmengine hands out the first visualizer of a name to all who ask for that name.
            name = f'mobileone_mm-{next(_numbers)}'
            self._visualizers[task] = VISUALIZERS.build(dict(_VISUALIZERS[task], name=name))
            self._visualizers[task].dataset_meta = {
                'classes': self.classes,
                'palette': self.palette,
            }
        return self._visualizers[task]

    def _boxes(self, image: np.ndarray, sample: Any) -> np.ndarray:
        visualizer = self._visualizer('detection')
        visualizer.add_datasample(
            '', image, sample, draw_gt=False, pred_score_thr=self.score_thr
        )
        return visualizer.get_image()

    def _class(self, image: np.ndarray, sample: Any) -> np.ndarray:
        side = _SMALLEST_SIDE if min(image.shape[:2]) < _SMALLEST_SIDE else None
        names = [class_name(self.classes, label) for label in range(len(sample.pred_score))]
        visualizer = self._visualizer('classification')
        return visualizer.visualize_cls(image, sample, classes=names, draw_gt=False, resize=side)

    def _areas(self, image: np.ndarray, sample: Any) -> np.ndarray:
        visualizer = self._visualizer('segmentation')
        labels = label_map(sample)
        number = max(int(labels.max()) + 1, len(self.classes or ()))
        names = [class_name(self.classes, label) for label in range(number)]
        colours = list(self.palette or ())[:number] or _colours(number)
        visualizer.dataset_meta = {'classes': names, 'palette': colours}
        # mmseg's own labels take seconds on a large picture and lie on the border of an area.
        visualizer.add_datasample('', image, sample, draw_gt=False, with_labels=False)
        for label in np.unique(labels).tolist():
            place = _deepest_point(labels == label)
            if place is not None:
                visualizer.draw_texts(
                    names[label],
                    np.array([place]),
                    colors='white',
                    font_sizes=max(8, round(min(image.shape[:2]) / 40)),
                    horizontal_alignments='center',
                    vertical_alignments='center',
                    bboxes=[dict(facecolor='black', alpha=0.6, pad=1.5, edgecolor='none')],
                )
        return visualizer.get_image()


def _deepest_point(area: np.ndarray) -> tuple[int, int] | None:
    """x and y of the pixel of an area that is farthest from its border; None for a tiny area."""
    depth = cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    if depth[y, x] < max(3, min(area.shape) / 60):
        return None
    return int(x), int(y)


def _colours(number: int) -> list[list[int]]:
    hues = np.linspace(0, 180, max(number, 1), endpoint=False)
    hsv = np.stack([hues, np.full_like(hues, 200), np.full_like(hues, 230)], 1)[None]
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)[0].tolist()


def save_picture(image: np.ndarray, path: Path) -> Path:
    """Write an RGB picture under its name, JPEG or PNG; other formats become PNG.

    Returns:
        The name that it has; ``.png`` is added to that of another format.

    Raises:
        InputError: It cannot be written.
    """
    if path.suffix.lower() not in (*_JPEG, '.png'):
        path = path.with_name(path.name + '.png')
    jpeg = path.suffix.lower() in _JPEG
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if jpeg else []
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    content = cv2.imencode('.jpg' if jpeg else '.png', bgr, options)[1].tobytes()
    atomic_write(path, lambda file: file.write(content))
    return path


class DrawHook(Hook):
    """Draws the predictions of a test into a folder.

    The hosts' hooks differ: mmpretrain's draws one picture in 5000, mmdet's writes pictures of the
    same name over each other and ends the run at a picture that cannot be read.

    Args:
        folder: Where the pictures go.
        score_thr: Lowest score of a box that is drawn.
    """

    priority = 'LOW'

    def __init__(self, folder: str | Path, score_thr: float = 0.3) -> None:
        self.folder = Path(folder)
        self.score_thr = score_thr
        self._painter: Painter | None = None
        self._names: dict[str, Path] = {}

    def before_test_epoch(self, runner: Any) -> None:
        dataset = runner.test_dataloader.dataset
        paths = [str(dataset.get_data_info(index)['img_path']) for index in range(len(dataset))]
        names = result_names([Path(path) for path in paths])
        self._names = {path: self.folder / name for path, name in zip(paths, names)}
        meta = getattr(runner.visualizer, 'dataset_meta', None) or dataset.metainfo
        self._painter = Painter(meta, self.score_thr)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        from ..data.loading import read_picture
        from ..errors import InputError

        assert self._painter is not None
        for sample in outputs or ():
            path = str(sample.img_path)
            try:
                image = read_picture(path)
            except InputError:
                continue  # reported by the loader
            save_picture(self._painter.draw(image, sample), self._names[path])
