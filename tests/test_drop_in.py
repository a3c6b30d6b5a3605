"""The backbone in pipelines that are not ours: the hosts' own configs, only the backbone changed.

Changed are the backbone, the channels that its users are told, and, so that a test can run it, the
data (a tiny generated set, small images, two a batch) and the length.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from demo.generator import CLASSES
from mobileone_mm.config.tree import walk
from mobileone_mm.models import get_arch

BACKBONE = dict(type='mobileone_mm.MobileOne', arch='mu0')
CHANNELS = list(get_arch('mu0').channels)
ALL_STAGES = dict(BACKBONE, out_indices=(0, 1, 2, 3))


def host_config(host: str, name: str) -> Config:
    package = pytest.importorskip(host)
    return Config.fromfile(Path(package.__file__).parent / '.mim' / 'configs' / name)


def train(config: Config, work_dir: Path) -> None:
    """Train for two steps with the host's own runner; every parameter used must move."""
    for _, node in walk(config._cfg_dict):
        for key in {'scale', 'crop_size', 'size'} & node.keys():
            node[key] = 64 if isinstance(node[key], int) else (64, 64)
    config.work_dir = str(work_dir)
    config.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1000)
    config.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    # The host's schedules are laid out for other lengths; the optimizer stays.
    config.param_scheduler = []
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    config.randomness = dict(seed=0)
    runner = Runner.from_cfg(config)
    runner.model.init_weights()
    assert type(runner.model.backbone).__module__ == 'mobileone_mm.models.mobileone'
    parameters = dict(runner.model.backbone.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    runner.train()
    assert runner.iter == 2
    for name, value in parameters.items():
        assert torch.isfinite(value).all(), name
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize('name', ['faster-rcnn', 'retinanet'])
def test_mmdet_with_fpn(name, tiny_coco, tmp_path):
    config = host_config('mmdet', f'{name.replace("-", "_")}/{name}_r50_fpn_1x_coco.py')
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
    [('upernet_r50', ALL_STAGES), ('fcn_r50-d8', dict(ALL_STAGES, output_stride=8))],
)
def test_mmseg(name, backbone, tiny_voc, tmp_path):
    folder = name.partition('_')[0]
    config = host_config('mmseg', f'{folder}/{name}_4xb4-20k_voc12aug-512x512.py')
    config.model.pretrained = None
    config.model.backbone = backbone
    for head, index in ((config.model.decode_head, 3), (config.model.auxiliary_head, 2)):
        head.in_channels = CHANNELS if folder == 'upernet' and index == 3 else CHANNELS[index]
        # As mmseg's docs say for one process: SyncBN needs several.
        head.norm_cfg = dict(type='BN', requires_grad=True)
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
