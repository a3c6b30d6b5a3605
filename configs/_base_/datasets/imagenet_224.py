"""ImageNet-1k at 224 px: random crop and flip; evaluation on a center crop.

Labels come from meta/train.txt and meta/val.txt in the root. Without these files they come from the
names of the folders in train/ and val/; then all 1000 folders must exist.
"""

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageNet',
        data_root='{{$IMAGENET_ROOT:data/imagenet}}',
        split='train',
        pipeline=[
            dict(type='mobileone_mm.LoadImage'),
            dict(type='RandomResizedCrop', scale=224, backend='pillow'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNet',
        data_root='{{$IMAGENET_ROOT:data/imagenet}}',
        split='val',
        pipeline=[
            dict(type='mobileone_mm.LoadImage', on_error='blank'),
            # Pillow filters when it downsamples, OpenCV does not. The published accuracies need the
            # filter.
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

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
