"""A correction of mmseg's cross entropy. The hosts are imported when a run needs it."""

from typing import Any

from torch import Tensor


def use_class_weights() -> None:
    """Make mmseg's ``CrossEntropyLoss`` work with ``class_weight``.

    It divides by the sum of the weights of the pixels, and fails at ignored ones: mmseg 1.2 looks up
    the weight of their class, 255; OneDL's fails with ``avg_non_ignore``, when it marks them in a list
    that does not have them. Here the sum is that of the pixels that count, as in torch.
    """
    from mmseg.models.losses import cross_entropy_loss as module

    original = module.cross_entropy
    if original.__module__ == __name__:
        return

    def cross_entropy(
        pred: Tensor, label: Tensor, weight: Any = None, class_weight: Any = None,
        reduction: str = 'mean', avg_factor: Any = None, ignore_index: int = -100, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        if class_weight is not None and avg_factor is None and reduction == 'mean':
            avg_factor = class_weight[label[label != ignore_index]].sum()
        return original(
            pred, label, weight, class_weight, reduction, avg_factor, ignore_index, **kwargs
        )

    module.cross_entropy = cross_entropy
