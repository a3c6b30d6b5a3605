"""A check of all images against the stored outputs before a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ..distill.views import StoredView
from ..registry import HOOKS


@HOOKS.register_module()
class TeacherOutputsCheckHook(Hook):
    """Looks every training image up before the first iteration.

    :class:`~mobileone_mm.distill.views.StoredView` alone finds a missing one when its turn comes,
    which may be hours later. Images that could not be read when the outputs were stored are left
    out, as they are without stored outputs.

    Raises:
        InputError: An image has no stored outputs, or the transforms are others.
    """

    def before_train(self, runner: Any) -> None:
        if not is_main_process():
            return
        left_out = []
        for dataset in _datasets(runner.train_dataloader.dataset):
            for transform in dataset.pipeline.transforms:
                if isinstance(transform, StoredView):
                    for index in range(len(dataset)):
                        path = dataset.get_data_info(index)['img_path']
                        if transform.stored.find(path) is None:
                            left_out.append(path)
        if left_out:
            runner.logger.warning(
                f'{len(left_out)} images could not be read when the outputs of the teachers were '
                f"stored and are left out, such as '{left_out[0]}'"
            )


def _datasets(dataset: Any) -> Iterator[Any]:
    """The datasets inside wrappers."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is not None:
            yield from _datasets(part)
    if hasattr(dataset, 'pipeline'):
        yield dataset
