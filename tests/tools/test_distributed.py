"""Two processes on the CPU, as torchrun starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from mobileone_mm.weights.reading import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def torchrun(tool, *argv):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    command += ['--master_addr=127.0.0.1', f'--master_port={port}', ROOT / 'tools' / f'{tool}.py']
    environment = {k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'}
    return subprocess.run(
        [*map(str, command), *map(str, argv), '--launcher', 'pytorch'],
        env={**environment, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_train_in_two_processes(tiny_config, tmp_path):
    """A segmentor with SyncBN trains, validates and writes one checkpoint."""
    config = tiny_config('seg')
    result = torchrun('train', config, '--work-dir', tmp_path / 'run')
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'SyncBN needs GPUs; BN replaces it on the CPU.' in result.stdout
    scalars = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    rows = [json.loads(line) for line in scalars]
    # 6 images, 2 processes, 2 a batch, the last incomplete one dropped.
    assert sum('loss' in row for row in rows) == 1
    assert any('mIoU' in row for row in rows)
    state = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')['state_dict']
    assert all(torch.isfinite(value).all() for value in state.values())


def test_test_in_two_processes_equals_one(tiny_config, tool, tmp_path):
    config = tiny_config('cls')
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    one, two = tmp_path / 'one.csv', tmp_path / 'two.csv'
    assert tool('test', config, checkpoint, '--work-dir', tmp_path / 'a', '--out', one) == 0
    result = torchrun('test', config, checkpoint, '--work-dir', tmp_path / 'b', '--out', two)
    assert result.returncode == 0, result.stderr[-3000:]
    assert two.read_text() == one.read_text()
