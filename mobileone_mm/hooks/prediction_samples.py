"""Drawn predictions in the course of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ..data.loading import read_image
from ..errors import InputError
from ..inference.draw import Painter
from ..inference.records import task_of
from ..registry import HOOKS


@HOOKS.register_module()
class PredictionSamplesHook(Hook):
    """Draws a few images of each validation and hands them to the visualizer's back ends.

    The same images each time, spread evenly over the validation set, so that one sees the net
    learn. The hosts' hooks draw every n-th image of the set, which for a small set is none and for
    a large one thousands, and each host has another option for it; mmdet's ends the run at an image
    that cannot be read.

    Args:
        num: How many images, of the first process alone.
        score_thr: Lowest score of a box that is drawn, from 0 to 1.

    Raises:
        ValueError: An argument is not allowed.
    """

    priority = 'LOW'

    def __init__(self, num: int = 8, score_thr: float = 0.3) -> None:
        if isinstance(num, bool) or not isinstance(num, int) or num < 1:
            raise ValueError(f'num: got {num!r}; an integer of at least 1 is needed')
        if not 0 <= score_thr <= 1:
            raise ValueError(f'score_thr: got {score_thr}; 0 to 1 is allowed')
        self.num, self.score_thr = num, score_thr
        self._painter: Painter | None = None
        self._places: set[int] = set()
        self._seen = 0

    def before_val_epoch(self, runner: Any) -> None:
        loader = runner.val_dataloader
        total = len(loader.sampler)  # of this process
        self._places = set(np.linspace(0, total - 1, min(self.num, total)).round().astype(int))
        self._painter = Painter(loader.dataset.metainfo, self.score_thr)
        self._seen = 0

    def after_val_iter(
        self, runner: Any, *_: Any, outputs: Sequence[Any] | None = None, **__: Any
    ) -> None:
        if self._painter is None or not is_main_process():
            return
        for sample in outputs or ():
            if self._seen in self._places and task_of(sample) is not None:
                self._draw(runner, sample)
            self._seen += 1

    def _draw(self, runner: Any, sample: Any) -> None:
        assert self._painter is not None
        path = Path(str(sample.img_path))
        try:
            image = read_image(str(path))
        except InputError:
            return  # reported by the loader
        # No slash: mmengine's local back end makes no folders, and cv2 then writes nothing.
        name = f'val_{self._seen:06d}_{path.stem}'
        runner.visualizer.add_image(name, self._painter.draw(image, sample), runner.iter)
