"""The soft-label loss of distillation, which mmpretrain and mmengine do not have."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..registry import MODELS


@MODELS.register_module()
class DistillLoss(nn.Module):
    """Kullback-Leibler divergence of a student from soft labels.

    For student logits z, soft labels p of the same temperature T and a batch of N, the loss is
    ``alpha T^2 / N sum_n KL(p_n || softmax(z_n / T))``. The classifier adds ``1 - alpha`` times the
    loss of its head on the hard labels.

    ``alpha=1, temperature=1`` is the loss of MEAL V2 (arXiv 2009.08453, section 3) without the
    entropy of p, which has no gradient. Other values give the distillation of Hinton et al. (arXiv
    1503.02531); T^2 keeps the scale of the gradient. mmpretrain's
    ``CrossEntropyLoss(use_soft=True)`` takes soft labels but no temperature.

    Args:
        temperature: Divisor of the logits, above 0.
        alpha: Weight of the soft labels, above 0 and up to 1; the hard labels get the rest.
    """

    def __init__(self, temperature: float = 1.0, alpha: float = 1.0) -> None:
        super().__init__()
        self.temperature = _positive('temperature', temperature, math.inf, 'a number above 0')
        self.alpha = _positive('alpha', alpha, 1, 'a number above 0 and up to 1 (no hard labels)')

    def forward(self, logits: Tensor, scores: Tensor) -> Tensor:
        """Compute the loss, a scalar, of student logits and soft labels, both N x classes."""
        # Half precision loses small probabilities.
        logits = logits.to(scores.dtype) if scores.dtype.itemsize > 4 else logits.float()
        student = F.log_softmax(logits / self.temperature, dim=1)
        divergence = F.kl_div(student, scores.to(student.dtype), reduction='batchmean')
        return self.alpha * self.temperature**2 * divergence


def _positive(name: str, value: Any, most: float, expected: str) -> float:
    number = isinstance(value, (int, float)) and type(value) is not bool
    if number and math.isfinite(value) and 0 < value <= most:
        return float(value)
    raise InputError(f'model.distill_loss.{name}: got {value!r}; expected {expected}')
