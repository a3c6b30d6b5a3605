"""A hook that checks that an evaluation gets each image of its annotation file once."""

from collections import Counter
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from ..errors import InputError
from ..registry import HOOKS


@HOOKS.register_module()
class EvaluatedImagesHook(Hook):
    """Compare the images of a validation or test with those of the file of its COCO metrics.

    mmdet evaluates against all images of the file. The objects of an image that no dataset yields count
    as missed, and the detections of an image that is predicted twice as false: wrappers such as
    RepeatDataset, and datasets of the user that list a part of the images, do that without a message.

    Raises:
        InputError: An image of the file is not predicted, or is predicted twice.
    """

    def before_train(self, runner: Any) -> None:
        _check(runner._val_loop, 'val')

    def before_test(self, runner: Any) -> None:
        _check(runner._test_loop, 'test')


def _check(loop: Any, name: str) -> None:
    if not isinstance(loop, BaseLoop):
        return
    dataset = loop.dataloader.dataset
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        truth = getattr(metric, '_coco_api', None)
        if truth is None or not hasattr(dataset, 'get_data_info'):
            continue  # the ground truth is that of the predicted images
        expected = set(truth.getImgIds())
        found = Counter(_id_of(dataset.get_data_info(place)) for place in range(len(dataset)))
        twice = next((one for one, times in found.items() if times > 1), None)
        missing = len(expected - found.keys())
        if twice is None and not missing:
            continue
        what = f'does not yield {missing} of the {len(expected)} images'
        if twice is not None:
            what = f'yields the image with the id {twice!r} {found[twice]} times'
        raise InputError(
            f'{name}_dataloader.dataset: {type(dataset).__name__} {what} of {name}_evaluator.ann_file, '
            'which are evaluated once each; use a dataset and an ann_file of the same images'
        )


def _id_of(info: Any) -> Any:
    return info.get('img_id') if isinstance(info, dict) else None
