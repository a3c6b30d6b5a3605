"""Element-wise sigmoid focal loss (Lin et al., arXiv 1708.02002) and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` with the loss of each logit.

    Logarithms are taken of the logits, not of rounded probabilities, so that far-off logits give
    their true, finite loss.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class; C, or anything outside 0 to C - 1, is background.
        weight: (C,) factor of each target's class, or empty. Background has factor 1.
        output: (N, C), filled in place.
        gamma: Exponent of the modulating factor.
        alpha: Share of the positives.
    """
    logits, positive, factor = _prepare(input, target, weight, alpha)
    sign = torch.where(positive, 1.0, -1.0)
    p_wrong = torch.sigmoid(-sign * logits)
    output.copy_(-factor * p_wrong.pow(gamma) * logsigmoid(sign * logits))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` with the derivative of each loss by its logit; arguments as forward."""
    logits, positive, factor = _prepare(input, target, weight, alpha)
    sign = torch.where(positive, 1.0, -1.0)
    p_wrong = torch.sigmoid(-sign * logits)
    p_right = torch.sigmoid(sign * logits)
    slope = gamma * p_right * logsigmoid(sign * logits) - p_wrong
    grad_input.copy_(sign * factor * p_wrong.pow(gamma) * slope)


def _prepare(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of at least float32, the positive positions, and the factor of each position."""
    logits = input if input.dtype == torch.float64 else input.float()
    classes = torch.arange(input.shape[1], device=input.device)
    positive = target.unsqueeze(1) == classes
    factor = logits.new_tensor([1.0 - alpha, alpha])[positive.long()]
    if weight.numel():
        known = (target >= 0) & (target < len(weight))
        each = weight.to(logits.dtype)[target.clamp(0, len(weight) - 1)]
        factor = factor * torch.where(known, each, 1.0).unsqueeze(1)
    return logits, positive, factor
