"""The soft-label loss of distillation; mmpretrain and mmengine have none."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..registry import MODELS


@MODELS.register_module()
class DistillLoss(nn.Module):
    """Kullback-Leibler divergence of a student from soft labels.

    With student logits z, soft labels p (made by the teachers at the same temperature T) and a batch
    of N, the loss is ``alpha T^2 / N sum_n KL(p_n || softmax(z_n / T))``. The classifier adds
    ``1 - alpha`` times the loss of its head on the hard labels.

    ``alpha=1, temperature=1`` is the soft-label loss of MEAL V2 (arXiv 2009.08453, section 3), up to
    the entropy of p, which has no gradient; ``alpha=0.9, temperature=4`` or the like is the plain
    distillation of Hinton et al. (arXiv 1503.02531), whose factor T^2 keeps the gradient's scale.
    mmpretrain's ``CrossEntropyLoss(use_soft=True)`` takes soft labels, but no temperature.

    Args:
        temperature: What logits are divided by, above 0.
        alpha: Weight of the soft labels, above 0 and up to 1; the hard labels get the rest.

    Raises:
        InputError: An argument is not allowed.
    """

    def __init__(self, temperature: float = 1.0, alpha: float = 1.0) -> None:
        super().__init__()
        if not (_is_number(temperature) and temperature > 0):
            raise InputError(
                f'model.distill_loss.temperature: got {temperature!r}; a number above 0 is needed'
            )
        if not (_is_number(alpha) and 0 < alpha <= 1):
            raise InputError(
                f'model.distill_loss.alpha: got {alpha!r}; a number above 0 and up to 1 is needed '
                '(1: no hard labels)'
            )
        self.temperature = float(temperature)
        self.alpha = float(alpha)

    def forward(self, logits: Tensor, scores: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            logits: Of the student, N x classes.
            scores: Soft labels, N x classes, each row of sum 1.
        """
        # In half precision small probabilities are lost.
        logits = logits.to(scores.dtype) if scores.dtype.itemsize > 4 else logits.float()
        student = F.log_softmax(logits / self.temperature, dim=1)
        divergence = F.kl_div(student, scores.to(student.dtype), reduction='batchmean')
        return self.alpha * self.temperature**2 * divergence


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
