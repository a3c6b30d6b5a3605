"""Training on a GPU: mixed precision, SyncBN over nccl, compile with channels_last."""

import mobileone_mm  # noqa: F401  isort: skip

import json
import math
import socket
from pathlib import Path
from statistics import mean

import pytest

from helpers import ROOT, python, scalars

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

EPOCHS = 10
AMP = """
optim_wrapper = dict({wrapper} clip_grad=dict(max_norm=35, norm_type=2))
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
log_processor = dict(window_size={window})
randomness = dict(seed=0)
"""


@pytest.fixture
def losses(tiny_config, tool, tmp_path: Path, amp_anywhere: None):
    """Train SSDLite for 30 iterations; return losses, gradient norms and the log."""

    def train(name: str, wrapper: str, window: int = 1) -> tuple[list[float], list[float], str]:
        extra = AMP.format(wrapper=wrapper, epochs=EPOCHS, window=window)
        work_dir = tmp_path / name
        assert tool('train', tiny_config('det', extra, name), '--work-dir', work_dir) == 0
        (log,) = work_dir.glob('*/*.log')
        rows = [row for row in scalars(work_dir) if 'loss' in row]
        return [row['loss'] for row in rows], [row['grad_norm'] for row in rows], log.read_text()

    return train


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_loss_falls_as_in_float32(losses, dtype: str):
    full, _, _ = losses('full', '')
    half, norms, log = losses(dtype, f"type='AmpOptimWrapper', dtype='{dtype}',")
    assert len(full) == len(half) == 3 * EPOCHS
    assert all(map(math.isfinite, half))
    assert mean(half[-6:]) < mean(half[:6])
    assert mean(half[-6:]) == pytest.approx(mean(full[-6:]), rel=0.15)
    skipped = [not math.isfinite(norm) for norm in norms]
    assert sum(skipped) < len(skipped) / 2, 'the scale never fits'
    assert ('The loss scaler skipped' in log) == any(skipped)


def test_skipped_steps_leave_the_logged_average(losses):
    """The first scale overflows, and the window holds the whole run."""
    scaler = "type='AmpOptimWrapper', dtype='float16', loss_scale=dict(init_scale=2.0**18),"
    _, norms, log = losses('overflow', scaler, window=50)
    assert not math.isfinite(norms[0])
    assert math.isfinite(norms[-1])
    assert 'The loss scaler skipped' in log


def test_sync_bn_in_one_process(tiny_config, device: str, tmp_path: Path):
    """nccl on a GPU; on the CPU gloo, and BN in the place of SyncBN."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    group = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
    lines = "sync_bn = 'torch'\nenv_cfg = dict(dist_cfg=dict(backend='nccl'))\n"
    command = (ROOT / 'tools' / 'train.py', tiny_config('cls', lines), '--launcher', 'pytorch')
    env = {**group, 'MASTER_PORT': str(port)}
    result = python(*command, '--work-dir', tmp_path / 'run', env=env)
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
    assert ('SyncBatchNorm' in result.stdout + result.stderr) == (device == 'cuda')


def test_compiled_channels_last_run_and_its_checkpoint(tiny_config, tool, tmp_path: Path):
    """A checkpoint of a compiled run gives the same metrics in ``tools/test.py``."""
    config = tiny_config('cls', 'compile = True\nchannels_last = True\nrandomness = dict(seed=0)\n')
    work_dir = tmp_path / 'run'
    assert tool('train', config, '--work-dir', work_dir) == 0
    trained = scalars(work_dir)[-1]['accuracy/top1']
    plain = tiny_config('cls', '', 'plain')
    out = tmp_path / 'metrics.json'
    flags = ('--work-dir', tmp_path / 'test', '--out', out)
    assert tool('test', plain, work_dir / 'epoch_1.pth', *flags) == 0
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(trained)
