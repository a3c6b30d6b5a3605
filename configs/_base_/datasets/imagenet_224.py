"""ImageNet-1k at 224 px: random crop and flip; evaluated on the centre of the image.

Labels come from meta/train.txt and meta/val.txt below the root where these files exist, else from the
names of the folders below train/ and val/ (all 1000 of them are needed then).
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
            # Pillow filters when it makes an image smaller, OpenCV does not; the published
            # accuracies are with the filter.
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
