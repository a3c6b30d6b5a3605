"""50 epochs at batch 64: AdamW, warm-up of 500 iterations, cosine, heads at ten times the rate, EMA.

The constructor corrects a fault of mmengine's: lr_mult of the heads gives decay to their norms and
biases. docs/recipes.md has the source of each value. From scratch, the backbone needs the rate of
the heads, and a short run needs no average:
    --cfg-options optim_wrapper.paramwise_cfg.custom_keys._delete_=True custom_hooks=[]
"""

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mobileone_mm.OptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=9e-4, weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(
            decode_head=dict(lr_mult=10.0),
            auxiliary_head=dict(lr_mult=10.0),
        ),
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=0,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# Decay 0.9995 in each iteration: an average over about 2000 iterations.
custom_hooks = [
    dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]

# 8 processes of 8 images.
auto_scale_lr = dict(enable=False, base_batch_size=64)
