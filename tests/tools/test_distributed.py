"""Two processes on the CPU, as torchrun starts them."""

import torch

from helpers import scalars
from mobileone_mm.weights.reading import read_checkpoint


def test_train_in_two_processes(tiny_config, torchrun, tmp_path):
    """A segmentor with SyncBN trains, validates and writes one checkpoint."""
    config = tiny_config('seg')
    result = torchrun('train', config, '--work-dir', tmp_path / 'run')
    assert 'SyncBN needs GPUs; BN replaces it on the CPU.' in result.stdout
    rows = scalars(tmp_path / 'run')
    # 6 images, 2 processes, 2 a batch, the last incomplete one dropped.
    assert sum('loss' in row for row in rows) == 1
    assert any('mIoU' in row for row in rows)
    state = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')['state_dict']
    assert all(torch.isfinite(value).all() for value in state.values())


def test_test_in_two_processes_equals_one(trained_run, tiny_config, tool, torchrun, tmp_path):
    config, checkpoint = tiny_config('cls'), trained_run('cls') / 'epoch_1.pth'
    one, two = tmp_path / 'one.csv', tmp_path / 'two.csv'
    assert tool('test', config, checkpoint, '--work-dir', tmp_path / 'a', '--out', one) == 0
    torchrun('test', config, checkpoint, '--work-dir', tmp_path / 'b', '--out', two)
    assert two.read_text() == one.read_text()
