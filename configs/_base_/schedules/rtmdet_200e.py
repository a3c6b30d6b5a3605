"""200 passes over COCO (40 epochs of five) at batch 192 with RTMDet's optimizer and its schedule.

AdamW, warm-up of 1000 iterations, a constant rate for half of the run, then a cosine; EMA.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.003, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min=1.5e-4,
        by_epoch=True,
        begin=20,
        end=40,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=2e-4,
        update_buffers=True,
        priority='ABOVE_NORMAL',
    ),
    dict(type='NumClassCheckHook'),
]

# 8 processes of 24 images.
auto_scale_lr = dict(enable=False, base_batch_size=192)
