"""``make test-gpu`` runs these tests; ``make test-gpu DEVICE=cpu`` tries them without a GPU."""

import mobileone_mm  # noqa: F401  isort: skip

import functools
import os

import pytest
import torch


@pytest.fixture(autouse=True)
def device() -> str:
    """The device of ``make test-gpu``; other runs skip these tests."""
    given = os.environ.get('MOBILEONE_MM_TEST_DEVICE')
    if not given:
        pytest.skip('`make test-gpu` runs this test')
    if given == 'cuda' and not torch.cuda.is_available():
        pytest.skip('torch finds no GPU')
    return given


@pytest.fixture
def amp_anywhere(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU: mmengine's AMP without its demand for a GPU, with torch's scaler for the CPU."""
    if device != 'cpu':
        return
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    from mmengine.runner import amp

    def autocast(dtype: torch.dtype | None = None) -> torch.autocast:
        return torch.autocast('cpu', dtype or torch.float16)

    scaler = functools.partial(torch.amp.GradScaler, device='cpu')
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', scaler)
    monkeypatch.setattr(amp, 'autocast', autocast)
