"""Parts of SSD that need a repair on top of mmdet's; imports mmdet, so it loads on demand only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.dense_heads.ssd_head import SSDHead as _SSDHead
from mmdet.models.necks.ssd_neck import SSDNeck as _SSDNeck
from torch import Tensor

from ..errors import InputError
from ..registry import MODELS


@MODELS.register_module()
class SSDHead(_SSDHead):
    """mmdet's SSD head, able to predict.

    mmdet's prediction asks every anchor head for ``loss_cls``, the module that AnchorHead's
    constructor builds. SSD's head skips that constructor, because it computes its losses by itself,
    so in today's releases (mmdet 3.3.0, onedl-mmdetection 3.5.1) each validation and test ends in
    an AttributeError. Arguments, weights and losses are mmdet's.
    """

    loss_cls = None


@MODELS.register_module()
class SSDNeck(_SSDNeck):
    """mmdet's SSD neck, which says what to do when BN meets a single value.

    At 320 px the last level is one cell. In training, plain BN cannot normalise one image's single
    cell, and PyTorch's message names only a tensor shape. Sequences of channels may be lists as well
    as tuples, so that they can be given on a command line. Everything else is mmdet's.

    Raises:
        InputError: While training, a batch of one image reached a level of one cell.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(tuple(in_channels), tuple(out_channels), **kwargs)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Feature maps of the backbone, then the extra levels, from fine to coarse."""
        try:
            return super().forward(inputs)
        except ValueError as error:
            if self.training and len(inputs[0]) == 1:
                raise InputError(
                    'train_dataloader.batch_size: got a batch of 1 image, whose last level is one '
                    'cell that BN cannot normalise; at least 2 images a process are needed'
                ) from error
            raise
