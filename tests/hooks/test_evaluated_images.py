"""An evaluation gets each image of its annotation file once."""

from types import SimpleNamespace

import pytest
from mmengine.runner import BaseLoop

from mobileone_mm.errors import InputError
from mobileone_mm.hooks.evaluated_images import EvaluatedImagesHook


class Loop(BaseLoop):
    def __init__(self, dataset, metrics):
        self.dataloader = SimpleNamespace(dataset=dataset)
        self.evaluator = SimpleNamespace(metrics=metrics)

    def run(self):
        """Is not called."""


class Rows(list):
    def get_data_info(self, place):
        return {'img_id': self[place]}


COCO = SimpleNamespace(_coco_api=SimpleNamespace(getImgIds=lambda: [1, 2, 3]))
FROM_PREDICTIONS, OTHER = SimpleNamespace(_coco_api=None), SimpleNamespace()


def run(dataset, metrics):
    loop = Loop(dataset, metrics)
    EvaluatedImagesHook().before_train(SimpleNamespace(_val_loop=loop))
    EvaluatedImagesHook().before_test(SimpleNamespace(_test_loop=loop))


def test_images_of_an_evaluation():
    run(Rows([3, 1, 2]), [OTHER, COCO])
    run(Rows([1]), [OTHER, FROM_PREDICTIONS])
    run([1, 2], [COCO])  # a dataset without a list of its images
    EvaluatedImagesHook().before_train(SimpleNamespace(_val_loop={'type': 'ValLoop'}))
    for dataset, said in (
        ([1, 2], 'does not yield 1 of the 3 images of val_evaluator.ann_file'),
        ([1, 2, 3, 2], 'yields the image with the id 2 2 times of val_evaluator.ann_file'),
    ):
        with pytest.raises(InputError, match=f'^val_dataloader.dataset: Rows {said}'):
            run(Rows(dataset), [COCO])
