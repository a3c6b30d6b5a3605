"""Check the processes and devices that the user asks for against those of the machine."""

import os

import torch
from mmengine.device import utils

from ..errors import InputError

# GLIBC_TUNABLES of a training on the CPU: glibc's default maps and unmaps the large tensors of the
# training form in each step.
ALLOCATOR = 'glibc.malloc.mmap_threshold=4000000000:glibc.malloc.trim_threshold=16000000000'

# For each launcher: environment variables that it sets for its processes, and how to start it.
_LAUNCHERS = {
    'pytorch': (
        ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'),
        'start with: torchrun --nproc_per_node=N tools/... --launcher pytorch',
    ),
    'slurm': (('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'), 'start with srun'),
    'mpi': (
        ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK',
         'MASTER_ADDR'),
        'start with mpirun and set MASTER_ADDR',
    ),
}  # fmt: skip
LAUNCHERS = ('none', *_LAUNCHERS)


def check_launcher(launcher: str) -> None:
    """Check that the launcher of the command line started the processes."""
    if launcher == 'none':
        started = os.environ.get('WORLD_SIZE', '1')
        if 'TORCHELASTIC_RUN_ID' in os.environ and started != '1':
            raise InputError(
                f'--launcher: torchrun started {started} processes, and each would do the whole run; '
                'add --launcher pytorch'
            )
        return
    variables, remedy = _LAUNCHERS[launcher]
    if missing := [name for name in variables if name not in os.environ]:
        raise InputError(
            f'--launcher {launcher}: {", ".join(missing)} not set in the environment; {remedy}'
        )
    if launcher == 'pytorch':
        for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT'):
            if not os.environ[name].isdecimal():
                raise InputError(
                    f"--launcher pytorch: {name} is '{os.environ[name]}'; expected an integer"
                )
        return
    if not torch.cuda.is_available():
        raise InputError(
            f'--launcher {launcher}: needs GPUs; without one use torchrun and --launcher pytorch'
        )
    # mmengine passes it to DDP as the index of the GPU, and does not set it under mpi.
    local = 'SLURM_LOCALID' if launcher == 'slurm' else 'OMPI_COMM_WORLD_LOCAL_RANK'
    os.environ.setdefault('LOCAL_RANK', os.environ.get(local, '0'))


_MACHINE_DEVICE = utils.DEVICE  # what mmengine found at its import
_gpu_before: list[int] = []  # the GPU that was current before a call chose one


def select_device(device: str | None) -> str:
    """Make mmengine use ``cpu``, ``cuda`` or ``cuda:N`` in this process, and name it.

    None stands for the accelerator that mmengine found at its import, else the CPU. A call is
    independent of earlier ones.
    """
    asked = device or _MACHINE_DEVICE
    try:
        chosen = torch.device(asked)
    except RuntimeError:
        raise InputError(f"--device: got '{device}'; expected cpu, cuda or cuda:N") from None
    if chosen.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            cpu_build = torch.version.cuda is None
            reason = 'this torch is a CPU build' if cpu_build else 'this machine has no usable GPU'
            raise InputError(f'--device {device}: {reason}; use --device cpu')
        if chosen.index is not None and chosen.index >= count:
            raise InputError(f'--device {device}: this machine has {count} GPUs, counted from 0')
        if chosen.index is not None:
            _gpu_before[:] = _gpu_before or [torch.cuda.current_device()]
            torch.cuda.set_device(chosen.index)
        elif _gpu_before:
            torch.cuda.set_device(_gpu_before.pop())
    elif chosen.type not in ('cpu', _MACHINE_DEVICE):
        raise InputError(f"--device: got '{device}'; this machine has {_MACHINE_DEVICE}")
    utils.DEVICE = chosen.type
    return asked


def is_first_process() -> bool:
    """Return whether this is the first process of its machine, by the environment."""
    return os.environ.get('LOCAL_RANK', '0') == '0'


def is_main_process() -> bool:
    """Return whether this is the first process of all, by the environment of any launcher."""
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in ranks if rank is not None), '0') == '0'
