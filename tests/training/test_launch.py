"""Which device a call uses, whatever an earlier call used."""

import pytest
import torch
from mmengine.device import get_device, utils

from mobileone_mm.errors import InputError
from mobileone_mm.training import launch


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs as far as mmengine and torch.cuda tell."""
    current = [1]
    monkeypatch.setattr(launch, '_MACHINE_DEVICE', 'cuda')
    monkeypatch.setattr(launch, '_gpu_before', [])
    monkeypatch.setattr(utils, 'DEVICE', 'cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: current[0])
    monkeypatch.setattr(torch.cuda, 'set_device', lambda index: current.__setitem__(0, index))
    return current


def test_a_call_is_independent_of_the_one_before(gpus):
    for device, name, index in (
        ('cpu', 'cpu', 1),
        (None, 'cuda', 1),
        ('cuda:0', 'cuda', 0),
        ('cpu', 'cpu', 0),
        (None, 'cuda', 1),  # the GPU that was current before cuda:0 was asked for
    ):
        assert launch.select_device(device) == (device or 'cuda')
        assert get_device() == name
        assert gpus == [index]


@pytest.mark.parametrize('device', ['gpu', 'cuda:2', 'mps'])
def test_device_that_is_not_there(device, gpus):
    with pytest.raises(InputError, match=f'--device:? .*{device}'):
        launch.select_device(device)
    assert get_device() == 'cuda'
