"""The tools on small pieces of the real datasets, with Apple's published weights."""

import csv

import pytest
import torch
from mmengine.registry import MODELS

from helpers import QUICK, cfg_options
from mobileone_mm import load_weights, reparameterize_model
from mobileone_mm.apis.test import evaluate
from mobileone_mm.apis.train import train
from mobileone_mm.hooks.recalibrate import recalibrate
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.models.block import statistics_unchanged
from mobileone_mm.runs.prepare import ROBUSTNESS, prepare
from mobileone_mm.training.runner import Runner

SMALL_CROPS = {
    'train_dataloader.batch_size': 2,
    'train_dataloader.drop_last': False,
    'train_dataloader.dataset.pipeline.2.scale': (256, 96),
    'train_dataloader.dataset.pipeline.3.crop_size': (64, 64),
    'model.data_preprocessor.size': (64, 64),
    'val_dataloader.dataset.pipeline.1.scale': (256, 96),
    'param_scheduler.1.end': 1,
    'param_scheduler.0.end': 1,
    'model.backbone.arch': 'mu0',
    'model.backbone.init_cfg': dict(_delete_=True, type='mobileone_mm.NearIdentityInit'),
    'model.decode_head.in_channels': 384,
    'model.auxiliary_head.in_channels': 128,
}


def test_published_s0(real_data, tmp_path, monkeypatch, fresh_mmengine):
    """501 of 640 images, as an independent implementation found; a Pillow resize is exact."""
    monkeypatch.setenv('IMAGENET_ROOT', str(real_data / 'imagenet'))
    out = tmp_path / 'predictions.csv'
    metrics = evaluate(
        'configs/mobileone_s0_in1k.py',
        str(real_data / 'weights' / 'mobileone_s0_apple_fused.pth'),
        work_dir=str(tmp_path),
        out=str(out),
        cfg_options={**cfg_options(*QUICK), 'model.backbone.deploy': True},
    )
    with (real_data / 'imagenet' / 'reference_s0_predictions.csv').open() as file:
        reference = {row['file']: row for row in csv.DictReader(file)}
    with out.open() as file:
        rows = {row['file']: row for row in csv.DictReader(file)}
    # 640 of 1000 classes: folder names alone would give wrong labels.
    labels = {name: row['label_index'] for name, row in reference.items()}
    assert {name: row['label_index'] for name, row in rows.items()} == labels
    right = sum(row['predicted_index'] == row['label_index'] for row in rows.values())
    assert abs(right - 501) <= 3
    assert metrics['accuracy/top1'] == pytest.approx(100 * right / 640, abs=1e-3)
    key = 'predicted_index'
    agreeing = sum(reference[name][key] == row[key] for name, row in rows.items())
    assert agreeing >= 0.98 * 640


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_published_s0_in_every_form(real_data, tmp_path, monkeypatch, fresh_mmengine):
    """Fused, lifted, fused again: the same class for each of 640 images; then in training mode."""
    monkeypatch.setenv('IMAGENET_ROOT', str(real_data / 'imagenet'))
    file = str(real_data / 'weights' / 'mobileone_s0_apple_fused.pth')
    options = {**cfg_options(*QUICK), 'test_dataloader.batch_size': 64}
    cfg = prepare('configs/mobileone_s0_in1k.py', options, ROBUSTNESS).cfg
    loader = Runner.build_dataloader(cfg.test_dataloader)

    def model(deploy):
        backbone = {**cfg.model.backbone, 'deploy': deploy}
        parts = {'backbone': backbone, 'data_preprocessor': cfg.model.data_preprocessor}
        return MODELS.build({**cfg.model, **parts}).eval()

    @torch.no_grad()
    def classes(net):
        found = []
        for batch in loader:
            data = net.data_preprocessor(batch, False)
            found.append(net(data['inputs'], mode='tensor').argmax(1))
        return torch.cat(found)

    fused, lifted = model(True), model(False)
    load_weights(fused, file)
    load_weights(lifted, file)
    labels = torch.cat([torch.cat([s.gt_label for s in batch['data_samples']]) for batch in loader])
    expected = classes(fused)
    assert abs(int((expected == labels).sum()) - 501) <= 3
    assert torch.equal(classes(lifted), expected)
    assert torch.equal(classes(reparameterize_model(lifted)), expected)

    def classes_in_training_mode(net):
        for block in [m for m in net.modules() if isinstance(m, MobileOneBlock)]:
            block.train()
        with statistics_unchanged(net):
            found = classes(net)
        net.eval()
        return int((found == labels).sum())

    before = classes_in_training_mode(lifted)
    recalibrate(
        lifted, loader, lambda b: lifted.extract_feat(lifted.data_preprocessor(b, False)['inputs'])
    )
    assert torch.equal(classes(lifted), expected)
    after = classes_in_training_mode(lifted)
    print(f'right in training mode: {before} before, {after} after')
    assert before < 50
    assert after > 450


@pytest.mark.parametrize(
    ('config', 'variable', 'folder', 'classes'),
    [
        ('deeplabv3_mobileone_s0_ade20k', 'ADE_ROOT', 'ADEChallengeData2016', 150),
        ('deeplabv3_mobileone_s0_voc', 'VOC_ROOT', 'VOCdevkit/VOC2012', 21),
        ('deeplabv3_mobileone_s0_voc', 'VOC_ROOT', 'coco_voc21', 21),
    ],
)
def test_segmentation_layouts(
    config, variable, folder, classes, real_data, tmp_path, monkeypatch, fresh_mmengine
):
    """Genuine pairs load, train a step and are evaluated with the official classes."""
    monkeypatch.setenv(variable, str(real_data / folder))
    monkeypatch.setenv('VOC_TRAIN', 'train')
    options = {**cfg_options(*QUICK), **SMALL_CROPS}
    if folder == 'coco_voc21':
        options['train_dataloader.dataset.indices'] = 4
        options['val_dataloader.dataset.indices'] = 4
    if variable == 'ADE_ROOT':  # one image to train on
        options['train_dataloader.sampler'] = dict(type='InfiniteSampler')
        options['train_cfg'] = dict(
            _delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=2
        )
    runner = train(f'configs/{config}.py', work_dir=str(tmp_path), cfg_options=options)
    for dataset in (runner.train_dataloader.dataset, runner.val_dataloader.dataset):
        assert len(dataset.metainfo['classes']) == classes
        assert dataset.ignore_index == 255
        # Label 0 of ADE20K's files is ignored; 1 to 150 become 0 to 149.
        labels = set(dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist())
        assert labels <= {*range(classes), 255}
    hub = runner.message_hub
    assert 0 <= hub.get_scalar('val/mIoU').current() <= 100
    assert hub.get_scalar('train/loss').current() > 0
