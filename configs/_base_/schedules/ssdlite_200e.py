"""200 passes over COCO (40 epochs of five) at batch 192: SGD, warm-up of 4500 iterations, cosine.

Another optimizer on the command line first deletes the arguments of SGD:
    --cfg-options optim_wrapper.optimizer._delete_=True optim_wrapper.optimizer.type=AdamW
        optim_wrapper.optimizer.lr=1e-3 optim_wrapper.optimizer.weight_decay=0.01
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=4500),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=0,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

custom_hooks = [
    dict(type='NumClassCheckHook'),
]

# 8 processes of 24 images.
auto_scale_lr = dict(enable=False, base_batch_size=192)
