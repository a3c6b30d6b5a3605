"""A hook that draws predictions during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ..data.loading import read_image
from ..errors import InputError, several
from ..faults import any_fault
from ..files import file_name
from ..inference.draw import Painter
from ..inference.predictions import task_of
from ..models.argument_checks import check_integer, check_number
from ..registry import HOOKS


@HOOKS.register_module()
class PredictionSamplesHook(Hook):
    """Draw the predictions of a few validation images and pass them to the visualizer's back ends.

    The images are the same in each validation and spread evenly over the dataset, so that progress is
    visible. The hosts' hooks draw every n-th image, which is none of a small dataset and thousands of a
    large one, each with its own options; mmdet's ends the run at an unreadable image. An image that
    cannot be drawn does not end the run either: the log names it at the end of the validation, once.

    Args:
        num: Number of images, all from the main process.
        score_thr: Lowest score of a drawn box, from 0 to 1.
    """

    priority = 'LOW'

    def __init__(self, num: int = 8, score_thr: float = 0.3) -> None:
        self.num = check_integer('num', num, 1)
        self.score_thr = check_number('score_thr', score_thr, 0, 1)
        self._painter: Painter | None = None
        self._places: set[int] = set()
        self._seen = 0
        self._undrawn: dict[str, str] = {}  # reasons by image
        self._named: set[str] = set()

    def before_val_epoch(self, runner: Any) -> None:
        loader = runner.val_dataloader
        total = len(loader.sampler)  # images of this process
        self._places = set(np.linspace(0, total - 1, min(self.num, total)).round().astype(int))
        self._painter = Painter(loader.dataset.metainfo, self.score_thr)
        self._seen = 0

    def after_val_iter(
        self, runner: Any, *_: Any, outputs: Sequence[Any] | None = None, **__: Any
    ) -> None:
        if self._painter is None or not is_main_process():
            return
        for place, sample in enumerate(outputs or (), self._seen):
            if place not in self._places or task_of(sample) is None:
                continue
            path = Path(str(sample.img_path))
            try:
                image = read_image(str(path))
            except InputError:
                continue  # the dataloader reports it
            # One short part of a path: mmengine's local back end creates no folder, and cv2 then
            # writes nothing.
            name = f'val_{place:06d}_{file_name(path.stem, set())}'
            try:
                runner.visualizer.add_image(name, self._painter.draw(image, sample), runner.iter)
            except Exception as error:
                self._undrawn[str(path)] = f"'{path}' ({any_fault(error)})"
        self._seen += len(outputs or ())

    def after_val_epoch(self, runner: Any, **_: Any) -> None:
        new = [reason for path, reason in self._undrawn.items() if path not in self._named]
        if new:
            runner.logger.warning(f'{len(new)} images could not be drawn: {several(new)}')
        self._named.update(self._undrawn)
