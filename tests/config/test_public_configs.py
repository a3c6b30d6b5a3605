"""The public configs: data roots, layouts, options, schedules, and mistyped options."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    MODELS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    DefaultScope,
    init_default_scope,
)
from torch import nn

from helpers import ROOT, cfg_options
from mobileone_mm.config.explain import config_faults
from mobileone_mm.config.read import load_config
from mobileone_mm.errors import InputError

CLASSIFIER, DETECTOR, SEGMENTOR = (
    'mobileone_s2_in1k',
    'ssdlite_mobileone_s2_coco',
    'deeplabv3_mobileone_s0_voc',
)
ROOTS = ('IMAGENET_ROOT', 'COCO_ROOT', 'VOC_ROOT', 'ADE_ROOT', 'VOC_TRAIN')


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ROOTS:
        monkeypatch.delenv(name, raising=False)
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


def load(name, *options):
    """A config with options of the command line, as the tools parse them."""
    path = ROOT / 'configs' / f'{name}.py'
    cfg = load_config(path, cfg_options(*options), needs=('optim_wrapper',))
    init_default_scope(cfg.default_scope)
    return cfg


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def groups_of(cfg):
    """Parameter groups by name, of a net with convolutions, biases and BN."""
    model = net()
    names = [name for name, _ in model.named_parameters()]
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    return optim, dict(zip(names, optim.optimizer.param_groups, strict=True))


def schedulers_of(cfg, optim, epoch_length):
    # The Runner's default of `end`.
    given = dict(optimizer=optim, epoch_length=epoch_length, end=cfg.train_cfg.max_epochs)
    return [PARAM_SCHEDULERS.build(step, default_args=given) for step in cfg.param_scheduler]


@pytest.mark.parametrize('slash', ['', '/'])
@pytest.mark.parametrize(
    ('name', 'variable', 'default'),
    [
        (CLASSIFIER, 'IMAGENET_ROOT', 'data/imagenet'),
        (DETECTOR, 'COCO_ROOT', 'data/coco/'),
        (SEGMENTOR, 'VOC_ROOT', 'data/VOCdevkit/VOC2012'),
        ('deeplabv3_mobileone_s1_ade20k', 'ADE_ROOT', 'data/ade/ADEChallengeData2016'),
    ],
)
def test_data_root(name, variable, default, slash, monkeypatch):
    def roots(cfg):
        train = cfg.train_dataloader.dataset
        found = [d.data_root for d in train.get('datasets', [train.get('dataset', train)])]
        return {*found, cfg.val_dataloader.dataset.data_root, cfg.test_dataloader.dataset.data_root}

    assert roots(load(name)) == {default}
    monkeypatch.setenv(variable, f'/some/where{slash}')
    cfg = load(name)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    assert roots(cfg) == {f'/some/where{slash}'}
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        if 'ann_file' in evaluator:
            path = Path(evaluator.ann_file)
            assert path == Path('/some/where/annotations/instances_val2017.json')


def test_imagenet_labels_come_from_folders_without_meta(tmp_path, monkeypatch):
    """The layout of the download: 1000 folders, no lists."""
    for split in ('train', 'val'):
        for number in range(1000):
            folder = tmp_path / split / f'n{number:08d}'
            folder.mkdir(parents=True)
            (folder / 'image.JPEG').touch()
    monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path))
    cfg = load('mobileone_s0_in1k')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert [dataset.get_data_info(i)['gt_label'] for i in range(1000)] == list(range(1000))


def test_voc_as_downloaded(monkeypatch, tiny_voc):
    """One variable leaves out the extra masks; then nothing but the download is needed."""
    lists = [Path(part.ann_file) for part in load(SEGMENTOR).train_dataloader.dataset.datasets]
    assert lists == [Path('ImageSets/Segmentation', f'{name}.txt') for name in ('train', 'aug')]
    monkeypatch.setenv('VOC_TRAIN', 'train')
    monkeypatch.setenv('VOC_ROOT', str(tiny_voc))
    dataset = DATASETS.build(load(SEGMENTOR).train_dataloader.dataset)
    listed = (tiny_voc / 'ImageSets' / 'Segmentation' / 'train.txt').read_text().split()
    assert len(dataset) == len(listed)
    assert len(dataset.metainfo['classes']) == 21


def test_options_of_a_small_detector():
    """All that a short run on own data changes, given the way a shell gives it."""
    cfg = load(
        DETECTOR,
        'train_dataloader.dataset.times=1',
        'train_dataloader.dataset.dataset.data_root=/own/',
        "train_dataloader.dataset.dataset.metainfo.classes=('cat','dog')",
        'model.bbox_head.num_classes=2',
        'param_scheduler.0.end=20',
        'param_scheduler.1.end=12',
        'train_cfg.max_epochs=12',
        'optim_wrapper.optimizer._delete_=True',
        'optim_wrapper.optimizer.type=AdamW',
        'optim_wrapper.optimizer.lr=1e-3',
        'optim_wrapper.optimizer.weight_decay=0.01',
    )
    train = cfg.train_dataloader.dataset
    assert (train.times, train.dataset.data_root) == (1, '/own/')
    assert train.dataset.metainfo.classes == ('cat', 'dog')
    assert len(train.dataset.pipeline) == 8
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, weight_decay=0.01)
    assert cfg.optim_wrapper.clip_grad.max_norm == 10
    optim, groups = groups_of(cfg)
    assert isinstance(optim.optimizer, torch.optim.AdamW)
    assert [group['weight_decay'] for group in groups.values()] == [0.01, 0, 0, 0, 0.01, 0]
    settings = dict(train_cfg=cfg.model.train_cfg, test_cfg=cfg.model.test_cfg)
    head = MODELS.build(dict(cfg.model.bbox_head, **settings))
    assert head.cls_convs[0][-1].out_channels == 6 * 3
    schedulers = schedulers_of(cfg, optim, epoch_length=10)
    assert (schedulers[0].end, schedulers[1].end, schedulers[1].T_max) == (20, 120, 120)


@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
def test_pretrained_backbone(name, tmp_path):
    """One option takes a file of one's own instead of the weights that the recipe names."""
    source = MODELS.build(dict(type='mobileone_mm.MobileOne', arch='mu0'))
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    state['head.fc.weight'], path = torch.zeros(3, 4), tmp_path / 'cls.pth'
    torch.save(dict(state_dict=state), path)
    options = ('model.backbone.arch=mu0', f'model.backbone.init_cfg.checkpoint={path}')
    cfg = load(name, *options)
    backbone = MODELS.build(dict(cfg.model.backbone, norm_cfg=dict(type='BN')))
    backbone.init_weights()
    expected = source.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ('name', 'rate', 'last', 'warm_up', 'epochs', 'length', 'limits'),
    [
        (CLASSIFIER, 0.1, 1e-6, 10, 300, 2, dict(rel=1e-3, abs=1e-6)),
        (DETECTOR, 0.05, 0, 4500, 40, 125, dict(rel=5e-3, abs=2e-6)),
        (SEGMENTOR, 9e-4, 0, 500, 50, 50, dict(rel=5e-3, abs=2e-6)),
    ],
)
def test_warm_up_and_cosine(name, rate, last, warm_up, epochs, length, limits):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == epochs
    optim, groups = groups_of(cfg)
    schedulers = schedulers_of(cfg, optim, length)
    for step in range(epochs * length):
        cosine = (1 + math.cos(math.pi * step / (epochs * length))) / 2
        rise = 0.001 + 0.999 * min(1, step / (warm_up - 1))
        expected = (last + (rate - last) * cosine) * rise
        assert groups['0.weight']['lr'] == pytest.approx(expected, **limits), step
        optim.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert groups['0.weight']['lr'] < 1e-3 * rate + 2e-6


SLIPS = [
    # Where the config is read: no argument of the class and no key of the dict has this name.
    (CLASSIFIER, 'model.backbone.out_indexes=(3,)'),
    (CLASSIFIER, 'custom_hooks.0.momentun=0.1'),
    (CLASSIFIER, 'val_evaluator.top=5'),
    (DETECTOR, 'model.bbox_head.anchor_generator.min_size=3'),
    (DETECTOR, 'model.train_cfg.neg_pos_ration=3'),
    (DETECTOR, 'default_hooks.checkpoint.intervall=2'),
    (DETECTOR, 'optim_wrapper.clip_gradd.max_norm=1'),
    (DETECTOR, 'param_scheduler.1.eta_mim=0'),
    (DETECTOR, 'train_confg.max_epochs=3'),
    (DETECTOR, 'auto_scale_lr.base=3'),
    (SEGMENTOR, 'model.backbone.output_strides=8'),
    # Where the part is built.
    (CLASSIFIER, 'model.backbone.norm_cfg.type=BNN'),
    (CLASSIFIER, 'model.head.num_class=10'),
    (CLASSIFIER, 'model.data_preprocessor.rgb=True'),
    (CLASSIFIER, 'val_dataloader.dataset.pipeline.1.size=256'),
    (DETECTOR, 'model.backbone.init_cfg.scale=0.2'),
    (DETECTOR, 'optim_wrapper.optimizer.learning_rate=1'),
    (DETECTOR, 'val_evaluator.classwize=True'),
    (SEGMENTOR, 'model.decode_head.loss_decode.weight=2'),
]


def load_and_build(name, option):
    """Build the part that an option belongs to, as the Runner does."""
    cfg = load(name, option)
    with config_faults(cfg):
        if option.startswith('model.'):
            if 'init_cfg' not in option and 'init_cfg' in cfg.model.backbone:  # a download
                cfg.model.backbone.init_cfg = dict(type='mobileone_mm.NearIdentityInit')
            MODELS.build(cfg.model).init_weights()
        elif option.startswith('optim_wrapper.'):
            groups_of(cfg)
        elif option.startswith('val_evaluator.'):
            Evaluator(cfg.val_evaluator)
        else:
            for step in cfg.val_dataloader.dataset.pipeline:
                TRANSFORMS.build(step)


@pytest.mark.parametrize(('name', 'option'), SLIPS, ids=[option for _, option in SLIPS])
def test_mistyped_key(name, option):
    """One line with its name, from the check of the config or from the constructor that gets it."""
    key = option.split('=')[0].split('.')[-1]
    with pytest.raises(InputError, match=f"{key}|'BNN'"):
        load_and_build(name, option)
