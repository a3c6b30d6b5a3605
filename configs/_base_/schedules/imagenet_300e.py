"""The paper's ImageNet recipe: 300 epochs at batch 256, cosine learning rate, label smoothing, EMA.

Learning rate and weight decay follow the length of the run: only set train_cfg.max_epochs=30.
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
    # From epoch 0, multiplied by the warm-up: rate and decay have the same cosine, and a run may be
    # shorter than the warm-up.
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=0,
        convert_to_iter_based=True,
    ),
    # From 1e-4 to 1e-5. A ratio, because eta_min=1e-5 would also apply to groups with another
    # decay_mult. Groups without decay (BN and biases) keep none.
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

# Decay 0.9995 in each iteration: an average over about 2000 iterations. For a few epochs on small
# data use a greater custom_hooks.0.momentum.
custom_hooks = [
    dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]

# 8 processes of 32 images.
auto_scale_lr = dict(enable=False, base_batch_size=256)
