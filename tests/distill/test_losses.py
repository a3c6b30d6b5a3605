"""Both losses against their formulas, value and gradient, in float64."""

import pytest
import torch
from torch.nn.functional import cross_entropy, softmax

from mobileone_mm.distill.losses import DistillLoss
from mobileone_mm.errors import InputError


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, *teachers = (torch.randn(7, 11, generator=generator).double() * 3 for _ in range(3))
    return student.requires_grad_(), teachers


@pytest.mark.parametrize('temperature', [1.0, 4.0])
@pytest.mark.parametrize('alpha', [1.0, 0.3])
def test_value_and_gradient(logits, temperature, alpha):
    student, teachers = logits
    p = sum(softmax(z / temperature, 1) for z in teachers) / 2
    loss = DistillLoss(temperature, alpha)(student, p)
    q = softmax(student.detach() / temperature, 1)
    expected = alpha * temperature**2 * (p * (p.log() - q.log())).sum() / 7
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, student)
    # d/dz of T^2 KL(p || softmax(z/T)) is T (q - p)
    torch.testing.assert_close(gradient, alpha * temperature * (q - p) / 7, rtol=1e-10, atol=1e-13)


def test_half_precision_is_computed_in_single():
    student = torch.tensor([[12.0, -12.0, 0.0]], dtype=torch.float16)
    p = torch.tensor([[1e-6, 1 - 2e-6, 1e-6]])
    loss = DistillLoss()(student, p)
    assert loss.dtype == torch.float32
    expected = DistillLoss()(student.double(), p.double())
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_labels_without_mass_are_finite(logits):
    student, _ = logits
    one_hot = torch.eye(11, dtype=torch.float64)[:7]
    loss = DistillLoss()(student, one_hot)
    assert float(loss) == pytest.approx(float(cross_entropy(student, one_hot)), rel=1e-12)


@pytest.mark.parametrize(
    'bad',
    [dict(temperature=0), dict(temperature='x'), dict(temperature=float('inf')), dict(alpha=0),
     dict(alpha=1.1), dict(alpha='x'), dict(alpha=None), dict(alpha=True)],
)  # fmt: skip
def test_refuses(bad):
    ((key, value),) = bad.items()
    said = f'^model.distill_loss.{key}: got {value!r}; expected a number'
    with pytest.raises(InputError, match=said):
        DistillLoss(**bad)
