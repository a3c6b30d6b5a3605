"""A check of all pictures against the stored outputs before a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ..registry import HOOKS
from .views import StoredView


@HOOKS.register_module()
class TeacherOutputsCheckHook(Hook):
    """Looks every training picture up before the first iteration.

    :class:`~mobileone_mm.distill.views.StoredView` alone finds a missing one when its turn comes,
    which may be hours later.

    Raises:
        InputError: A picture has no stored outputs, or the transforms are others.
    """

    def before_train(self, runner: Any) -> None:
        if not is_main_process():
            return
        for dataset in _datasets(runner.train_dataloader.dataset):
            for transform in dataset.pipeline.transforms:
                if isinstance(transform, StoredView):
                    for index in range(len(dataset)):
                        transform.stored.find(dataset.get_data_info(index)['img_path'])


def _datasets(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is not None:
            yield from _datasets(part)
    if hasattr(dataset, 'pipeline'):
        yield dataset
