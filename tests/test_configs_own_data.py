"""The three lines of the docs for data of one's own, on real images under other names."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import QUICK, ROOT, SCRATCH, scalars

COMMON = (*SCRATCH, *QUICK, 'model.backbone.arch=mu0', 'train_dataloader.batch_size=2')
DETECTOR = (
    'model.neck.in_channels=[128,384]', 'model.neck.out_channels=[128,384,64,64,64,64]',
    'model.bbox_head.in_channels=[128,384,64,64,64,64]', 'train_dataloader.dataset.times=1',
    'train_dataloader.dataset.dataset.pipeline.4.scale=(160,160)',
    'model.test_cfg.score_thr=0.001', 'model.test_cfg.nms_pre=50',
    'val_dataloader.dataset.pipeline.1.scale=(160,160)',
)  # fmt: skip
SEGMENTOR = (
    'model.decode_head.in_channels=384', 'model.decode_head.channels=32',
    'model.auxiliary_head.in_channels=128', 'model.auxiliary_head.channels=32',
    'train_dataloader.dataset.pipeline.2.scale=(256,96)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'model.data_preprocessor.size=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(256,96)', 'custom_hooks=[]',
)  # fmt: skip


def command(page: str) -> list[str]:
    """Config and options of the page's own-data command, as bash hands them over."""
    text = (ROOT / 'docs' / page).read_text().partition('## Your own ')[2]
    block = text.partition('python tools/train.py ')[2].partition('\n\n')[0]
    assert len(block.splitlines()) == 4  # the config, and three lines
    script = 'printf "%s\\0" ' + block
    words = subprocess.run(['bash', '-c', script], capture_output=True, text=True, check=True)
    return words.stdout.split('\0')[:-1]


@pytest.fixture
def last_row(tool, tmp_path):
    """Train with options, and return the last row of the log."""

    def train(config, *options):
        assert tool('train', ROOT / config, '--work-dir', tmp_path / 'run', *options) == 0
        rows = scalars(tmp_path / 'run')
        assert rows[0]['loss'] > 0
        return rows[-1]

    return train


@pytest.fixture
def coco(real_data, tmp_path, monkeypatch):
    """Images of people and chairs whose annotations call them screws and nuts."""
    real, root = real_data / 'coco', tmp_path / 'mine'
    monkeypatch.setenv('COCO_ROOT', str(root))
    new = {'person': dict(id=7, name='screw'), 'chair': dict(id=3, name='nut')}
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (root / split).symlink_to(real / split)
        name = f'instances_{split}.json'
        table = json.loads((real / 'annotations' / name).read_text())
        names = {row['id']: row['name'] for row in table['categories']}
        rows = [
            {**row, 'category_id': new[kind]['id']}
            for row in table['annotations']
            if (kind := names[row['category_id']]) in new
        ]
        seen = list(dict.fromkeys(row['image_id'] for row in rows))[:4]
        table.update(
            images=[image for image in table['images'] if image['id'] in seen],
            annotations=[row for row in rows if row['image_id'] in seen],
            categories=list(new.values()),
        )
        (root / 'annotations' / name).write_text(json.dumps(table))


@pytest.mark.parametrize('kind', ['ssdlite', 'rtmdet'])
def test_detection(kind, coco, last_row):
    config, *options = command('detection.md')
    more = DETECTOR
    if kind == 'rtmdet':
        config = config.replace('ssdlite', 'rtmdet').replace('_s2_', '_s0_')
        more = ('model.neck.0.in_channels=[80,128,384]', *DETECTOR[3:])
    assert 'coco/bbox_mAP' in last_row(config, *options, *COMMON, *more)


def renumbered(source: Path, target: Path, first: int) -> None:
    """A genuine mask with three classes from ``first`` on in the place of all."""
    mask = np.array(Image.open(source))
    known = (mask != 255) & (mask >= first)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(known, mask % 3 + first, mask).astype(np.uint8)).save(target)


@pytest.mark.parametrize('layout', ['voc', 'ade20k'])
def test_segmentation(layout, real_data, last_row, tmp_path, monkeypatch):
    """Genuine pairs of VOC and of ADE20K in their layouts, with three classes of one's own."""
    config, *options = command('segmentation.md')
    root = tmp_path / 'mine'
    if layout == 'voc':
        source = real_data / 'VOCdevkit' / 'VOC2012'
        for path in (source / 'SegmentationClass').glob('*.png'):
            renumbered(path, root / 'SegmentationClass' / path.name, first=0)
        for name in ('JPEGImages', 'ImageSets'):
            shutil.copytree(source / name, root / name)
    else:
        source, config = real_data / 'ADEChallengeData2016', config.replace('_voc', '_ade20k')
        for path in (source / 'annotations').rglob('*.png'):
            # Two of its three pairs to train on, since BN needs more than one image.
            for folder in ('training', 'validation'):
                renumbered(path, root / 'annotations' / folder / path.name, first=1)
                (root / 'images' / folder).mkdir(parents=True, exist_ok=True)
                image = source / 'images' / path.parent.name / f'{path.stem}.jpg'
                shutil.copy(image, root / 'images' / folder)
    monkeypatch.setenv('VOC_TRAIN', 'train')
    monkeypatch.setenv('VOC_ROOT' if layout == 'voc' else 'ADE_ROOT', str(root))
    assert 0 <= last_row(config, *options, *COMMON, *SEGMENTOR)['mIoU'] <= 100
