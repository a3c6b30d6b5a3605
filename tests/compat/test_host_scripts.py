"""The hosts' own train and test scripts run our configs, with or without compiled operators."""

import json
from pathlib import Path

import pytest
import torch

from helpers import QUICK, ROOT, SCRATCH, python

BATCHES = [f'{split}_dataloader.batch_size=2' for split in ('train', 'val', 'test')]


def tool(host: str, name: str) -> Path:
    """Script that the host installs for mim."""
    package = pytest.importorskip(host)
    script = Path(package.__file__).parent / '.mim' / 'tools' / f'{name}.py'
    if not script.is_file():
        pytest.skip(f'{host} brings no tools/{name}.py')
    return script


def run(host: str, config: str, folder: Path, options: list[str], test=True) -> str:
    """Train an epoch and validate, then test the checkpoint; output of the last program."""
    common = [ROOT / 'configs' / config, '--work-dir', folder]
    options = ['--cfg-options', *QUICK, *BATCHES, *options]
    command = ('-m', 'mobileone_mm.compat')
    done = python(*command, tool(host, 'train'), *common, *options)
    assert 'Epoch(val) [1]' in done.stdout + done.stderr
    if test:
        common.insert(1, folder / 'epoch_1.pth')
        done = python(*command, tool(host, 'test'), *common, *options)
    return done.stdout + done.stderr


@pytest.mark.parametrize('test', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mmdet(roots, tmp_path: Path, test: bool):
    overlaps = pytest.importorskip('mmdet.structures.bbox').bbox_overlaps
    options = [
        *SCRATCH,
        'train_dataloader.dataset.times=1',
        'model.test_cfg.score_thr=0.0',  # an untrained net is sure of nothing
        f'{"test" if test else "val"}_evaluator.outfile_prefix={tmp_path / "found"}',
    ]
    output = run('mmdet', 'ssdlite_mobileone_s0_coco.py', tmp_path, options, test)
    assert 'coco/bbox_mAP' in output
    found = json.loads((tmp_path / 'found.bbox.json').read_text())
    assert len(found) > 4
    groups: dict[tuple[int, int], list[list[float]]] = {}
    for one in found:
        groups.setdefault((one['image_id'], one['category_id']), []).append(one['bbox'])
    for group in groups.values():
        boxes = torch.tensor(group, dtype=torch.float64)  # corner and size
        boxes[:, 2:] += boxes[:, :2]
        assert overlaps(boxes, boxes).fill_diagonal_(0).max() <= 0.46  # written rounded


@pytest.mark.slow
@pytest.mark.parametrize(
    ('host', 'config', 'options', 'metric'),
    [
        ('mmpretrain', 'mobileone_s0_in1k', [], 'accuracy/top1'),
        ('mmseg', 'deeplabv3_mobileone_s0_voc', SCRATCH, 'mIoU'),
    ],
)
def test_other_hosts(host, config, options, metric, tmp_path: Path, roots, monkeypatch):
    monkeypatch.setenv('VOC_TRAIN', 'train')
    assert metric in run(host, f'{config}.py', tmp_path, options)
