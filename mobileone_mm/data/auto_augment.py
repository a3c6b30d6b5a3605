"""AutoAugment whose hyper-parameters arrive."""

from __future__ import annotations

from typing import Any

from mmpretrain.datasets.transforms import AutoAugment as MMPretrainAutoAugment

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class AutoAugment(MMPretrainAutoAugment):
    """mmpretrain's AutoAugment, with its ``hparams`` in force.

    mmpretrain merges ``hparams`` into the policies and then builds the policies from before, so that
    ``pad_val`` is 128 whatever the config says. All else is mmpretrain's.

    Args:
        policies: Name of a collection of policies, or the policies themselves.
        hparams: Settings for those augmentations that have them, such as ``pad_val``.
    """

    def __init__(self, policies: str | list[list[dict]], hparams: dict[str, Any]) -> None:
        super().__init__(policies, hparams)
        super().__init__(self.policies, hparams)
