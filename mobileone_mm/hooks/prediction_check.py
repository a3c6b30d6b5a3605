"""A hook that ends a validation or test whose predictions are NaN or Inf."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement

from ..errors import InputError
from ..inference.predictions import check_finite
from ..registry import HOOKS


@HOOKS.register_module()
class PredictionCheckHook(Hook):
    """End a validation or test at the first image whose scores or boxes hold NaN or Inf.

    Finite weights can overflow in the network. The hosts then evaluate as usual: the greatest of
    several NaN is the first class. mmdet's detectors drop boxes with a score of NaN, and the log says
    that the results are empty.

    Raises:
        InputError: Names the image.
    """

    priority = 'VERY_HIGH'  # before the images are drawn

    def _after_iter(
        self,
        runner: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,  # noqa: ARG002
        outputs: Sequence[Any] | None = None,
        mode: str = 'train',
    ) -> None:
        for sample in () if mode == 'train' else outputs or ():
            if isinstance(sample, BaseDataElement):
                try:
                    check_finite(sample)
                except InputError as error:
                    raise InputError(f"image '{sample.get('img_path')}': {error}") from error
