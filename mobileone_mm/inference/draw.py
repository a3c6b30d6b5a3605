"""Draw predictions and labels: boxes and masks, areas, or the best classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from ..data.encoding import encode_image
from ..data.loading import read_image
from ..errors import InputError, several
from ..faults import any_fault
from ..files import atomic_write
from .images import result_names
from .predictions import class_name, label_map, record_of, task_of

# Smaller images are enlarged for drawing: text on them could not be read. The longer side has a limit:
# a thin image would become a drawing that needs gigabytes, or that its format cannot hold.
_SMALLEST_SIDE, _LARGEST_SIDE = 320, 4096
_DARK = dict(facecolor='black', alpha=0.6, pad=1.5, edgecolor='none')
_OPACITY = 0.5
_IGNORED = 255


class Painter:
    """Draws predictions and labels of all three tasks onto images, with mmengine's visualizer.

    The visualizers of the hosts write the labels of small boxes at 5 points, hide the image under its
    areas, and need seconds to find the middle of an area. ``meta`` has ``classes`` and, if there is
    one, ``palette`` of the dataset; ``score_thr`` is the lowest score of a box that is drawn.
    """

    def __init__(self, meta: dict[str, Any], score_thr: float = 0.3) -> None:
        self.classes = [str(name) for name in meta.get('classes') or ()]
        self.palette = [tuple(map(int, colour)) for colour in meta.get('palette') or ()]
        self.score_thr = score_thr
        self._visualizer = Visualizer()

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        """Draw the predictions of a sample, which must be at the size of the image.

        The image is height x width x 3, RGB, 8 bits; so is the result. Small images are enlarged and
        large ones reduced, see :func:`drawing_size`.
        """
        larger, scale = self._begin(image)
        task = task_of(sample)
        if task == 'segmentation':
            self._areas(larger, label_map(sample))
        elif task == 'detection':
            instances = sample.pred_instances.cpu()
            self._instances(instances[instances.scores >= self.score_thr], scale)
        elif task == 'classification':
            # Of the synonyms in a class name of ImageNet, the first is drawn.
            best = record_of(sample, self.classes, 0)['top'][:3]
            self._names(
                [f'{row["category"].partition(",")[0]}  {row["score"]:.0%}' for row in best]
            )
        return self._visualizer.get_image()

    def draw_truth(self, image: np.ndarray, sample: Any) -> np.ndarray:
        """Draw the labels of a sample: ``gt_label``, ``gt_instances`` or ``gt_sem_seg``.

        As :meth:`draw`, with the image after the pipeline. Ignored pixels (class 255) are dark.
        """
        larger, scale = self._begin(image)
        if 'gt_sem_seg' in sample:
            self._areas(larger, np.asarray(sample.gt_sem_seg.data).squeeze(0), _IGNORED)
        elif 'gt_instances' in sample:
            given = sample.gt_instances
            boxes = getattr(given.bboxes, 'tensor', given.bboxes)  # mmdet's boxes are a class
            shown = InstanceData(bboxes=boxes, labels=given.labels)
            if 'masks' in given:
                shown.masks = list(given.masks.to_ndarray())
            self._instances(shown, scale)
        elif 'gt_label' in sample:
            names = [class_name(self.classes, label) for label in sample.gt_label.tolist()]
            self._names([name.partition(',')[0] for name in names])
        return self._visualizer.get_image()

    def colour(self, label: int) -> tuple[int, int, int]:
        """Return the RGB colour of a class: that of the dataset, else a hue of its own."""
        if label < len(self.palette):
            return self.palette[label]  # type: ignore[return-value]
        # Steps of the golden section keep neighbours apart for any number of classes.
        hsv = np.array([[[round(180 * (label * 0.618034 % 1)), 200, 230]]], np.uint8)
        return tuple(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist())

    def _begin(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Begin a drawing at a size at which text is legible; return the image and its factor."""
        size, scale = drawing_size(image)
        if scale != 1:
            method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
            image = cv2.resize(image, size, interpolation=method)
        self._visualizer.set_image(image)
        return image, scale

    def _instances(self, shown: Any, scale: float) -> None:
        width, height = self._visualizer.width, self._visualizer.height
        font, line = (max(least, round(min(width, height) / n)) for least, n in ((9, 42), (2, 240)))
        order = range(len(shown.labels))
        if 'scores' in shown:  # the best box last, on top of the others
            order = shown.scores.argsort(stable=True).tolist()
        for index in order:
            label = int(shown.labels[index])
            colour, text = self.colour(label), class_name(self.classes, label)
            if 'scores' in shown:
                text += f' {float(shown.scores[index]):.0%}'
            if 'masks' in shown:
                size, mask = (width, height), np.asarray(shown.masks[index], dtype=np.uint8)
                mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(bool)
                self._visualizer.draw_binary_masks(mask, colors=colour, alphas=_OPACITY)
            box = np.asarray(shown.bboxes[index], dtype=np.float64) * scale
            # mmengine warns of a side beyond the border and does not draw it.
            box = box.clip(0, [width - 1, height - 1] * 2)
            self._visualizer.draw_bboxes(box, edge_colors=colour, line_widths=line)
            inside = box[1] < 2 * font
            self._text(
                text,
                max(0, min(box[0], width - _width(text, font))) + line,
                box[1] + (line if inside else -line),
                font,
                colors='black' if sum(colour) > 382 else 'white',
                vertical_alignments='top' if inside else 'bottom',
                bboxes=[dict(_DARK, facecolor=np.array(colour) / 255, alpha=0.8)],
            )

    def _names(self, names: Sequence[str]) -> None:
        font = max(9, round(min(self._visualizer.width, self._visualizer.height) / 32))
        self._text('\n'.join(names), font, font, font)

    def _text(self, text: str, x: float, y: float, font: int, **style: Any) -> None:
        style = {'colors': 'white', 'bboxes': [_DARK], **style}
        text = text.replace('$', r'\$')  # matplotlib reads a formula between two dollars
        # mmengine warns of a place outside; a thin image has none for all of a text.
        place = np.clip((x, y), 0, (self._visualizer.width - 1, self._visualizer.height - 1))
        self._visualizer.draw_texts(text, place[None], font_sizes=font, **style)

    def _areas(self, image: np.ndarray, labels: np.ndarray, ignored: int | None = None) -> None:
        height, width = image.shape[:2]
        size = width, height
        labels = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
        blended = image.astype(np.float32)
        if ignored is not None:
            blended[labels == ignored] *= 1 - _OPACITY
        places: list[tuple[str, int, int]] = []
        for label in np.unique(labels).tolist():
            name, area = class_name(self.classes, label), labels == label
            if label != ignored and name != 'background':
                colour = np.array(self.colour(label), np.float32)
                blended[area] += (colour - blended[area]) * _OPACITY
                places += [(name, *place) for place in _deepest_point(area)]
        self._visualizer.set_image(blended.round().astype(np.uint8))
        font = max(9, round(min(width, height) / 40))
        for name, x, y in places:
            half = _width(name, font) / 2
            middle = dict(horizontal_alignments='center', vertical_alignments='center')
            self._text(name, min(max(x, half), max(half, width - half)), y, font, **middle)


def drawing_size(image: np.ndarray) -> tuple[tuple[int, int], float]:
    """Return width and height of the drawing of an image, and their factor.

    The shorter side is at least 320 px, unless the longer one would exceed 4096 px.
    """
    height, width = image.shape[:2]
    scale = max(1.0, _SMALLEST_SIDE / min(height, width))
    scale = min(scale, _LARGEST_SIDE / max(height, width))
    return (max(1, round(width * scale)), max(1, round(height * scale))), scale


def _width(text: str, font: int) -> float:
    return 0.8 * font * len(text)  # of a letter, in font sizes


def _deepest_point(area: np.ndarray) -> list[tuple[int, int]]:
    """Return x and y of the pixel farthest from the border of an area; nothing for a tiny area."""
    depth = cv2.distanceTransform(np.pad(area, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return [(int(x), int(y))] if depth[y, x] >= max(3, min(area.shape) / 60) else []


def save_image(image: np.ndarray, path: Path) -> Path:
    """Write an RGB image as JPEG or PNG and return its path; other formats get the suffix ``.png``.

    InputError if the file cannot be written, or the format cannot hold the image.
    """
    if path.suffix.lower() not in ('.jpg', '.jpeg', '.png'):
        path = path.with_name(path.name + '.png')
    atomic_write(path, encode_image(image, path.suffix))
    return path


class DrawHook(Hook):
    """Draws the predictions of a test into a folder.

    Of the hosts' hooks, mmpretrain's draws one image in 5000; mmdet's overwrites images of the same
    name, and ends the run at an image that cannot be read. An image that cannot be drawn or written
    costs neither metrics nor predictions; the log names it at the end.
    """

    priority = 'LOW'

    def __init__(self, folder: str | Path, score_thr: float = 0.3) -> None:
        self.folder, self.score_thr = Path(folder), score_thr
        self._undrawn: list[str] = []

    def before_test_epoch(self, runner: Any) -> None:
        dataset = runner.test_dataloader.dataset
        paths = [str(dataset.get_data_info(index)['img_path']) for index in range(len(dataset))]
        names = result_names([Path(path) for path in paths])
        self._names = {path: self.folder / name for path, name in zip(paths, names, strict=True)}
        self._painter = Painter(dataset.metainfo, self.score_thr)

    def after_test_iter(self, *_: Any, outputs: Sequence[Any] = (), **__: Any) -> None:
        for sample in outputs:
            path = str(sample.img_path)
            try:
                image = read_image(path)
            except InputError:
                continue  # reported by the loader
            try:
                save_image(self._painter.draw(image, sample), self._names[path])
            except Exception as error:
                self._undrawn.append(f"'{path}' ({any_fault(error)})")

    def after_test_epoch(self, runner: Any, **_: Any) -> None:
        if self._undrawn:
            runner.logger.warning(
                f'{len(self._undrawn)} images could not be drawn: {several(self._undrawn)}'
            )
            self._undrawn = []
