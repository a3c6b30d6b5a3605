"""Which device a call uses, whatever an earlier call used."""

import os

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


@pytest.mark.parametrize(
    ('cuda', 'reason'), [(None, 'this torch is a CPU build'), ('12', 'this machine has no usable')]
)
def test_a_machine_with_one_gpu_or_none(cuda, reason, gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    assert launch.select_device('cuda') == 'cuda'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    with pytest.raises(InputError, match=f'^--device cuda: {reason}'):
        launch.select_device('cuda')


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_the_first_process(name, monkeypatch):
    for variable in ('LOCAL_RANK', 'RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(variable, raising=False)
    assert launch.is_first_process() is launch.is_main_process() is True
    for rank in '01':
        monkeypatch.setenv(name, rank)
        assert launch.is_main_process() is (rank == '0')
        monkeypatch.setenv('LOCAL_RANK', rank)
        assert launch.is_first_process() is (rank == '0')


@pytest.mark.parametrize(
    ('launcher', 'local'), [('slurm', 'SLURM_LOCALID'), ('mpi', 'OMPI_COMM_WORLD_LOCAL_RANK')]
)
def test_a_launcher_gives_the_index_of_the_gpu(launcher, local, gpus, monkeypatch):
    for name in (*launch._LAUNCHERS[launcher][0], 'LOCAL_RANK'):
        monkeypatch.setenv(name, '1')
    monkeypatch.delenv('LOCAL_RANK')
    monkeypatch.setenv(local, '3')
    launch.check_launcher(launcher)
    assert os.environ['LOCAL_RANK'] == '3'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(InputError, match=f'^--launcher {launcher}: needs GPUs'):
        launch.check_launcher(launcher)


def test_what_torchrun_sets_is_checked(monkeypatch):
    for variables in ({}, dict(WORLD_SIZE='2'), dict(TORCHELASTIC_RUN_ID='x', WORLD_SIZE='1')):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        launch.check_launcher('none')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(InputError, match='torchrun started 2 processes'):
        launch.check_launcher('none')
    with pytest.raises(InputError, match='not set in the environment'):
        launch.check_launcher('pytorch')
    for name in launch._LAUNCHERS['pytorch'][0]:
        monkeypatch.setenv(name, '1')
    launch.check_launcher('pytorch')
    monkeypatch.setenv('MASTER_PORT', 'x')
    with pytest.raises(InputError, match="MASTER_PORT is 'x'"):
        launch.check_launcher('pytorch')
