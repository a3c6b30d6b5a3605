"""Sigmoid focal loss against its formula and numerical derivatives."""

import math

import pytest
import torch
from torch import Tensor

import mobileone_mm

if mobileone_mm.compat.status()['mmcv._ext'] == 'native':
    pytest.skip('compiled mmcv has no focal loss for the CPU', allow_module_level=True)

from mmcv.ops import SigmoidFocalLoss, sigmoid_focal_loss

TARGETS = torch.tensor([0, 2, 3, 1, 3])  # 3 is the background


def by_formula(logits, gamma: float, alpha: float, weight=None) -> Tensor:
    p = 1 / (1 + (-logits).exp())
    positive = -alpha * (1 - p) ** gamma * p.log()
    negative = -(1 - alpha) * p**gamma * (1 - p).log()
    loss = torch.where(TARGETS[:, None] == torch.arange(3), positive, negative)
    return loss if weight is None else loss * torch.cat((weight, weight.new_ones(1)))[TARGETS, None]


@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize('weighted', [False, True])
def test_loss_and_gradient(gamma: float, alpha: float, weighted: bool):
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else None

    def function(x: Tensor, reduction: str = 'sum') -> Tensor:
        return sigmoid_focal_loss(x, TARGETS, gamma, alpha, weight, reduction)

    expected = by_formula(logits, gamma, alpha, weight)
    torch.testing.assert_close(function(logits, 'none'), expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(function, (logits.clone().requires_grad_(),))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype: torch.dtype):
    logits = torch.tensor([[-200.0, 0.0, 200.0], [200.0, -200.0, 0.0]], dtype=dtype)
    logits.requires_grad_()
    loss = SigmoidFocalLoss(2.0, 0.25)(logits, torch.tensor([0, 3]))
    loss.backward()
    assert loss.dtype == dtype
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    # Wrong by 200: 0.25 * 200 as a positive, 0.75 * 200 as a negative, twice; mean over 2 rows.
    zero = 0.75 * 0.25 * math.log(2)
    assert loss.item() == pytest.approx((50 + 150 + 150 + 2 * zero) / 2, rel=1e-2)


def test_no_rows():
    logits = torch.empty(0, 3, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.empty(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss.item() == 0
