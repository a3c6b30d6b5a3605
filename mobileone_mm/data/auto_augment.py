"""AutoAugment whose hyper-parameters arrive; AutoAugment and RandAugment in less time."""

from __future__ import annotations

from typing import Any

from mmpretrain.datasets.transforms import AutoAugment as MMPretrainAutoAugment
from mmpretrain.datasets.transforms import RandAugment as MMPretrainRandAugment

from ..registry import TRANSFORMS
from .augmentations import faster


@TRANSFORMS.register_module()
class AutoAugment(MMPretrainAutoAugment):
    """mmpretrain's AutoAugment, with its ``hparams`` in force.

    mmpretrain merges ``hparams`` into the policies and then builds the policies from before, so that
    ``pad_val`` is 128 whatever the config says. All else is mmpretrain's; augmentations that are
    slow there are faster here (:func:`~mobileone_mm.data.augmentations.faster`).

    Args:
        policies: Name of a collection of policies, or the policies themselves.
        hparams: Settings for those augmentations that have them, such as ``pad_val``.
    """

    def __init__(self, policies: str | list[list[dict]], hparams: dict[str, Any]) -> None:
        super().__init__(policies, hparams)
        super().__init__(self.policies, hparams)
        faster(self)


@TRANSFORMS.register_module()
class RandAugment(MMPretrainRandAugment):
    """mmpretrain's RandAugment: the same images, bit by bit, in less time.

    Its arguments are mmpretrain's; see :func:`~mobileone_mm.data.augmentations.faster`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        faster(self)
