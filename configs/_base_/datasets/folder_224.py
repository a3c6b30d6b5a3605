"""Your own images at 224 px: train/ and val/ with one folder for each class."""

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='{{$FOLDER_ROOT:data/folder}}',
        data_prefix='train',
        pipeline=[
            dict(type='mobileone_mm.LoadImage'),
            # In small datasets, crops that miss the object are harmful.
            dict(
                type='RandomResizedCrop', scale=224, crop_ratio_range=(0.35, 1.0), backend='pillow'
            ),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='{{$FOLDER_ROOT:data/folder}}',
        data_prefix='val',
        pipeline=[
            dict(type='mobileone_mm.LoadImage', on_error='blank'),
            dict(
                type='ResizeEdge',
                scale=256,
                edge='short',
                backend='pillow',
                interpolation='bilinear',
            ),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator
