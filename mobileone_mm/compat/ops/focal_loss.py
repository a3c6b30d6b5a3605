"""Element-wise sigmoid focal loss (Lin et al., arXiv 1708.02002) and its gradient."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .compiled import at_least_float


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``output`` (N, C) with the loss of each logit in ``input`` (N, C).

    ``target`` (N,) are classes; anything outside 0 to C - 1 is background. ``weight`` (C,) are factors
    of each target's class, or empty; background has factor 1.
    """
    output.copy_(_loss(at_least_float(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill ``grad_input`` with the derivative of each loss by its logit; arguments as forward."""
    logits = at_least_float(input).detach().requires_grad_()
    with torch.enable_grad():
        total = _loss(logits, target, weight, gamma, alpha).sum()
        grad_input.copy_(torch.autograd.grad(total, logits)[0])


def _loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target.unsqueeze(1) == classes
    margin = torch.where(positive, logits, -logits)
    factor = logits.new_tensor([1.0 - alpha, alpha])[positive.long()]
    if weight.numel():
        known = (target >= 0) & (target < len(weight))
        each = weight.to(logits.dtype)[target.clamp(0, len(weight) - 1)]
        factor = factor * torch.where(known, each, 1.0).unsqueeze(1)
    # Powers and logarithms of logits instead of rounded probabilities: the loss of far logits and its
    # derivative stay exact and finite.
    return -factor * torch.exp(gamma * logsigmoid(-margin)) * logsigmoid(margin)
