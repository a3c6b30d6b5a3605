"""The paper's ImageNet recipe: 300 epochs at batch 256, cosine learning rate, label smoothing, EMA.

Learning rate and weight decay end with the run, however long: train_cfg.max_epochs=30 is enough.
docs/imagenet.md has the source of each value.
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
    # From the start, times the warm-up: rate and decay have one cosine, and a run may be shorter than
    # the warm-up.
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=0,
        convert_to_iter_based=True,
    ),
    # From 1e-4 to 1e-5. As a ratio: with eta_min=1e-5 a group with a decay_mult of its own would end at
    # 1e-5 as well. Groups without decay (BN and biases) stay without.
    dict(
        type='CosineAnnealingWeightDecay',
        eta_min_ratio=0.1,
        by_epoch=True,
        begin=0,
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

# 8 processes of 32 images.
auto_scale_lr = dict(enable=False, base_batch_size=256)
