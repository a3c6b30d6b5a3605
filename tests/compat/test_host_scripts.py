"""The hosts' own train and test scripts run our configs, with or without compiled operators."""

from pathlib import Path

import pytest

from helpers import QUICK, ROOT, SCRATCH, python

BATCHES = [f'{split}_dataloader.batch_size=2' for split in ('train', 'val', 'test')]
# An untrained net is sure of nothing.
DETECTOR = (*SCRATCH, 'train_dataloader.dataset.times=1', 'model.test_cfg.score_thr=0.0')
CASES = {
    'mmdet': ('ssdlite_mobileone_s0_coco', DETECTOR, 'coco/bbox_mAP'),
    'mmpretrain': ('mobileone_s0_in1k', (), 'accuracy/top1'),
    'mmseg': ('deeplabv3_mobileone_s0_voc', SCRATCH, 'mIoU'),
}


def script(host: str, name: str) -> Path:
    """Script that the host installs for mim."""
    package = pytest.importorskip(host)
    path = Path(package.__file__).parent / '.mim' / 'tools' / f'{name}.py'
    if not path.is_file():
        pytest.skip(f'{host} brings no tools/{name}.py')
    return path


@pytest.mark.parametrize(
    ('host', 'test'),
    [('mmdet', False), *(pytest.param(host, True, marks=pytest.mark.slow) for host in CASES)],
)
def test_an_epoch(host: str, test: bool, tmp_path: Path, roots, monkeypatch):
    """Train and validate; where it is asked for, test the checkpoint."""
    monkeypatch.setenv('VOC_TRAIN', 'train')
    config, options, metric = CASES[host]
    common = [ROOT / 'configs' / f'{config}.py', '--work-dir', tmp_path]
    options = ('--cfg-options', *QUICK, *BATCHES, *options)
    command = ('-m', 'mobileone_mm.compat')
    done = python(*command, script(host, 'train'), *common, *options)
    assert 'Epoch(val) [1]' in done.stdout + done.stderr
    if test:
        common.insert(1, tmp_path / 'epoch_1.pth')
        done = python(*command, script(host, 'test'), *common, *options)
    assert metric in done.stdout + done.stderr
