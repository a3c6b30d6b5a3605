"""A check of all training images against the stored outputs of teachers."""

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ..distill.views import StoredView
from ..registry import HOOKS
from ..training.run_model import datasets_inside


@HOOKS.register_module()
class TeacherOutputsCheckHook(Hook):
    """Looks up the stored outputs of every training image before the first iteration.

    Without it, a missing image ends the run when its turn comes, which may be hours later. Images
    that could not be read when the outputs were stored are left out with a warning.

    Raises:
        InputError: An image has no stored outputs, or the transforms differ.
    """

    def before_train(self, runner: Any) -> None:
        if not is_main_process():
            return
        left_out = [
            path
            for dataset in datasets_inside(runner.train_dataloader.dataset)
            for transform in dataset.pipeline.transforms
            if isinstance(transform, StoredView)
            for path in (dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))
            if transform.stored.read(transform.stored.find(path), transform.stored.views[0]) is None
        ]
        if left_out:
            runner.logger.warning(
                f'{len(left_out)} images could not be read when the outputs of the teachers were '
                f"stored and are left out, such as '{left_out[0]}'"
            )
