"""Sigmoid focal loss against its formula and numerical derivatives."""

import math

import pytest
import torch
from torch import Tensor

import mobileone_mm

pytest.importorskip('mmcv')
if mobileone_mm.compat.status()['mmcv._ext'] == 'native':
    pytest.skip('compiled mmcv has no focal loss for the CPU', allow_module_level=True)

from mmcv.ops import SigmoidFocalLoss, sigmoid_focal_loss

TARGETS = torch.tensor([0, 2, 3, 1, 3])  # 3 is the background


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, generator=generator, dtype=torch.float64) * 3


def by_formula(logits, gamma: float, alpha: float, weight=None) -> Tensor:
    loss = torch.zeros_like(logits)
    for n, target in enumerate(TARGETS.tolist()):
        for c in range(3):
            p = 1 / (1 + math.exp(-logits[n, c].item()))
            if c == target:
                value = -alpha * (1 - p) ** gamma * math.log(p)
            else:
                value = -(1 - alpha) * p**gamma * math.log(1 - p)
            known = weight is not None and target < 3
            loss[n, c] = value * (weight[target].item() if known else 1)
    return loss


@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.9)])
@pytest.mark.parametrize('weighted', [False, True])
def test_loss_and_gradient(logits: Tensor, gamma: float, alpha: float, weighted: bool):
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else None
    loss = sigmoid_focal_loss(logits, TARGETS, gamma, alpha, weight, 'none')
    torch.testing.assert_close(
        loss, by_formula(logits, gamma, alpha, weight), rtol=1e-9, atol=1e-12
    )

    def function(x: Tensor) -> Tensor:
        return sigmoid_focal_loss(x, TARGETS, gamma, alpha, weight, 'sum')

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
