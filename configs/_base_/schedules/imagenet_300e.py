"""The paper's ImageNet recipe: 300 epochs at batch 256, cosine learning rate, label smoothing, EMA.

Weight decay falls from 1e-4 to 1e-5 by the same cosine; mmpretrain's scheduler leaves the groups
without decay (BN and biases) without. Pictures keep one size and one strength of augmentation.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.001,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=300,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingWeightDecay',
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# Decay 0.9995 an iteration: an average over some 2000 iterations, too slow for runs of a few epochs
# on small data (raise the momentum there: custom_hooks.0.momentum).
custom_hooks = [
    dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]

# 8 processes of 32 pictures.
auto_scale_lr = dict(enable=False, base_batch_size=256)
