"""MEAL V2's schedule: 180 epochs at batch 512, learning rate 0.01, from epoch 100 0.001, no decay.

The weight average is that of the MobileOne paper for all sizes.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0),
)
param_scheduler = dict(type='MultiStepLR', milestones=[100], gamma=0.1, by_epoch=True)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=180, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

custom_hooks = [
    dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]

# 8 processes of 64 images; a leaf sets the batch size.
auto_scale_lr = dict(enable=False, base_batch_size=512)
