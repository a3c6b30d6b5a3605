"""Corrected parts of mmdet's SSD. The module imports mmdet, so the registry loads it on demand."""

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads.ssd_head import SSDHead as _SSDHead
from mmdet.models.necks.ssd_neck import SSDNeck as _SSDNeck
from torch import Tensor

from ..errors import InputError
from ..registry import MODELS


@MODELS.register_module()
class SSDHead(_SSDHead):
    """mmdet's SSD head with a working prediction.

    mmdet's prediction reads ``loss_cls`` of every anchor head, which AnchorHead's constructor sets.
    SSDHead does not call that constructor, so with mmdet 3.3.0 and onedl-mmdetection 3.5.1 each
    validation and test ends in an AttributeError. Arguments, weights and losses are mmdet's.
    """

    loss_cls = None


@MODELS.register_module()
class SSDNeck(_SSDNeck):
    """mmdet's SSD neck with a clear error for batches of one image.

    At 320 px the last level is one cell. In training, BN cannot normalise the single cell of one
    image, and PyTorch's message only names a tensor shape. Channels may also be lists, so that the
    command line can set them. Everything else is mmdet's.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(tuple(in_channels), tuple(out_channels), **kwargs)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the feature maps of the backbone and the extra levels, from fine to coarse."""
        try:
            return super().forward(inputs)
        except ValueError as error:
            if self.training and len(inputs[0]) == 1:
                raise InputError(
                    'train_dataloader.batch_size: got a batch of 1 image, whose last level is one '
                    'cell that BN cannot normalise; expected at least 2 images per process'
                ) from error
            raise
