"""Apple's S0 teaches a small net on real images: their agreement rises."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch.utils.data import DataLoader

from helpers import ROOT
from mobileone_mm.weights.fit import load_weights

CONFIG = """
_base_ = ['{configs}/mobileone_s0_meal_in1k.py']
model = dict(
    backbone=dict(arch='mu0', init_cfg=dict(type='mobileone_mm.NearIdentityInit')),
    head=dict(in_channels=384),
    teachers=[dict(
        config='{configs}/mobileone_s0_in1k.py', checkpoint='{weights}', input_size=224)],
)
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False, dataset=dict(
    split='val',  # 640 images; there are no others
    pipeline=[
        dict(type='mobileone_mm.LoadImage'),
        dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.5, 1.0), backend='pillow'),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='PackInputs'),
    ],
))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='mobileone_mm.LoadImage'),
    dict(type='ResizeEdge', scale=110, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs'),
]))
optim_wrapper = dict(_delete_=True, optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.0))
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', T_max=16, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(max_epochs=16)
custom_hooks = []
load_from = None
default_hooks = dict(checkpoint=dict(save_best=None, interval=16), logger=dict(interval=10))
"""


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_agreement_rises(real_data, tool, tmp_path, monkeypatch, capsys):
    """Sixteen epochs on four stored views of 640 images, 96 px, from scratch."""
    monkeypatch.setenv('IMAGENET_ROOT', str(real_data / 'imagenet'))
    weights = real_data / 'weights' / 'mobileone_s0_apple_fused.pth'
    path = tmp_path / 'real.py'
    path.write_text(CONFIG.format(configs=ROOT / 'configs', weights=weights))
    assert tool('store_teacher_outputs', path, tmp_path / 'out', '--views', 4, '--topk', 20) == 0
    stored = f'model.outputs={tmp_path / "out"}'
    assert tool('train', path, '--work-dir', tmp_path / 'run', '--no-validate',
                '--cfg-options', stored) == 0  # fmt: skip

    cfg = Config.fromfile(path)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = DATASETS.build(cfg.test_dataloader.dataset)
    before = measure(model, data)
    load_weights(model, tmp_path / 'run' / 'epoch_16.pth')
    after = measure(model, data)
    with capsys.disabled():
        print(f'\nmu0 and its teacher S0 on {len(data)} centre crops of 96 px:')
        for name, (agreement, divergence) in (('untrained', before), ('trained', after)):
            print(f'  {name}: same class {agreement:.1%}, KL divergence {divergence:.2f}')
    assert before[0] < 0.02
    assert after[0] > before[0] + 0.1
    assert after[1] < 0.7 * before[1]


@torch.no_grad()
def measure(model, dataset):
    """Share of images for which both prefer one class, and the mean divergence."""
    model.eval()
    same, divergence = 0.0, 0.0
    for batch in DataLoader(dataset, 32, collate_fn=default_collate):
        inputs = model.data_preprocessor(batch)['inputs']
        logits, scores = model(inputs), model.load_teachers().scores(inputs)
        same += float((logits.argmax(1) == scores.argmax(1)).sum())
        divergence += float(model.distill_loss(logits, scores)) * len(inputs)
    return same / len(dataset), divergence / len(dataset)
