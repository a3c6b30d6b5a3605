"""AutoAugment with working hyper-parameters; AutoAugment and RandAugment in less time."""

from __future__ import annotations

from typing import Any

from mmpretrain.datasets.transforms import AutoAugment as MMPretrainAutoAugment
from mmpretrain.datasets.transforms import RandAugment as MMPretrainRandAugment

from ..registry import TRANSFORMS
from .augmentations import faster


@TRANSFORMS.register_module()
class AutoAugment(MMPretrainAutoAugment):
    """mmpretrain's AutoAugment with working ``hparams``, and with faster augmentations.

    mmpretrain merges ``hparams`` into the policies, but builds the unmerged ones: ``pad_val`` is
    always 128. :func:`~mobileone_mm.data.augmentations.faster` replaces the slow augmentations.

    Args:
        policies: Name of a collection of policies, or the policies.
        hparams: Settings of the augmentations that have them, such as ``pad_val``.
    """

    def __init__(self, policies: str | list[list[dict]], hparams: dict[str, Any]) -> None:
        super().__init__(policies, hparams)
        super().__init__(self.policies, hparams)
        faster(self)


@TRANSFORMS.register_module()
class RandAugment(MMPretrainRandAugment):
    """mmpretrain's RandAugment with the same pixels in less time, by faster augmentations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        faster(self)
