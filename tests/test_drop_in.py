"""The backbone in pipelines that are not ours: the hosts' own configs, only the backbone changed.

Each config is read from the installed host. Changed are the backbone line, the channels that its
users are told (one line each), and, so that a test can run it, the data (a tiny generated set, small
images, two a batch) and the length.
"""

import importlib
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from demo.generator import CLASSES
from mobileone_mm.models import get_arch

BACKBONE = dict(type='mobileone_mm.MobileOne', arch='mu0')
CHANNELS = list(get_arch('mu0').channels)
ALL_STAGES = dict(BACKBONE, out_indices=(0, 1, 2, 3))


def host_config(host: str, name: str) -> Config:
    folder = Path(importlib.import_module(host).__file__).parent / '.mim' / 'configs'
    return Config.fromfile(folder / name)


def shrink(node, scale):
    """Set image sizes and worker counts, wherever they are."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ('scale', 'crop_size', 'size') and isinstance(value, (tuple, list, int)):
                node[key] = scale if isinstance(value, (tuple, list)) else scale[0]
            elif key == 'num_workers':
                node[key] = 0
            elif key == 'persistent_workers':
                node[key] = False
            else:
                shrink(value, scale)
    elif isinstance(node, (list, tuple)):
        for value in node:
            shrink(value, scale)


def train(config: Config, work_dir: Path) -> None:
    """Train for two steps with the host's own runner; every parameter used must move."""
    shrink(config._cfg_dict, (64, 64))
    config.work_dir = str(work_dir)
    config.train_dataloader.batch_size = 2
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1000)
    config.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    # The host's schedules are laid out for other lengths; the optimizer stays.
    config.param_scheduler = []
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    config.randomness = dict(seed=0)
    runner = Runner.from_cfg(config)
    runner.model.init_weights()
    before = {n: p.detach().clone() for n, p in runner.model.backbone.named_parameters()}
    runner.train()
    assert runner.iter == 2
    assert type(runner.model.backbone).__module__ == 'mobileone_mm.models.mobileone'
    after = dict(runner.model.backbone.named_parameters())
    moved = [n for n, value in before.items() if not torch.equal(value, after[n])]
    assert all(bool(torch.isfinite(p).all()) for p in after.values())
    assert len(moved) == len(before)


@pytest.mark.parametrize(
    'name',
    ['faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'retinanet/retinanet_r50_fpn_1x_coco.py'],
)
def test_mmdet_with_fpn(name, tiny_coco, tmp_path):
    config = host_config('mmdet', name)
    config.model.backbone = ALL_STAGES
    config.model.neck.in_channels = CHANNELS
    config.train_dataloader.dataset.update(
        data_root=str(tiny_coco),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        metainfo=dict(classes=CLASSES),
    )
    train(config, tmp_path)


@pytest.mark.parametrize(
    ('name', 'backbone'),
    [
        ('upernet/upernet_r50_4xb4-20k_voc12aug-512x512.py', ALL_STAGES),
        # FCN on an output of stride 8
        ('fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py', dict(ALL_STAGES, output_stride=8)),
    ],
)
def test_mmseg(name, backbone, tiny_voc, tmp_path):
    config = host_config('mmseg', name)
    # As mmseg's docs say for one process: SyncBN needs several.
    norm = dict(type='BN', requires_grad=True)
    config.model.pretrained = None
    config.model.backbone = backbone
    for head, index in ((config.model.decode_head, 3), (config.model.auxiliary_head, 2)):
        head.in_channels = CHANNELS if 'upernet' in name and index == 3 else CHANNELS[index]
        head.norm_cfg = norm
    config.model.data_preprocessor.size = (64, 64)
    config.train_dataloader.dataset = dict(
        type='PascalVOCDataset',
        data_root=str(tiny_voc),
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=config.train_pipeline,
    )
    train(config, tmp_path)


def test_mmpretrain(tiny_imagenet, tmp_path):
    config = host_config('mmpretrain', 'resnet/resnet18_8xb32_in1k.py')
    config.model.backbone = dict(BACKBONE, out_indices=(3,))
    config.model.head.in_channels = CHANNELS[-1]
    dataset = config.train_dataloader.dataset
    dataset.update(data_root=str(tiny_imagenet), ann_file='meta/train.txt', data_prefix='train')
    dataset.pop('split', None)
    train(config, tmp_path)
