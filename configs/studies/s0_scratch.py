"""S0 from scratch with the complete recipe: 64 px, 8 epochs of 1,000 drawn images.

Only for ablations: tools/analysis_tools/ablate.py with s0_scratch_variants.py.
"""

_base_ = [
    '../_base_/models/mobileone.py',
    '../_base_/datasets/imagenet_64_autoaugment.py',
    '../_base_/schedules/imagenet_300e_curriculum.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(backbone=dict(arch='s0', init_cfg=dict(type='mobileone_mm.NearIdentityInit')))
optim_wrapper = dict(optimizer=dict(lr=0.05))
_annealed = dict(by_epoch=True, begin=0, convert_to_iter_based=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, end=1, **_annealed),
    dict(type='CosineAnnealingLR', eta_min=1e-6, **_annealed),
    dict(type='CosineAnnealingWeightDecay', eta_min_ratio=0.1, **_annealed),
]
train_cfg = dict(max_epochs=8, val_interval=8)
default_hooks = dict(logger=dict(interval=20))
custom_hooks = [
    # An average over 20 iterations: the run is too short for the paper's 2000.
    dict(type='EMAHook', momentum=0.05, update_buffers=True, priority='ABOVE_NORMAL'),
    # The paper's resolutions times 64 / 224, as multiples of 8, and its epochs, scaled.
    dict(
        type='mobileone_mm.CurriculumHook',
        total=300,
        phases=[
            dict(begin=0, resolution=48, strength=0.3),
            dict(begin=38, resolution=56, strength=0.7),
            dict(begin=113, resolution=64, strength=1.0),
        ],
    ),
]
