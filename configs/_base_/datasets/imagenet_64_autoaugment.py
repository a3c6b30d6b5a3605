"""ImageNet's layout at 64 px with AutoAugment, for studies on a CPU with images of 128 px."""

_base_ = ['./imagenet_224_autoaugment.py']

train_dataloader = dict(
    num_workers=1,
    drop_last=True,
    dataset=dict(
        pipeline=[
            dict(type='mobileone_mm.LoadImage'),
            dict(type='RandomResizedCrop', scale=64, backend='pillow'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(
                type='mobileone_mm.AutoAugment',
                policies='imagenet',
                hparams=dict(pad_val=[104, 116, 124]),
            ),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=[
            dict(type='mobileone_mm.LoadImage', on_error='blank'),
            dict(
                type='ResizeEdge',
                scale=73,
                edge='short',
                backend='pillow',
                interpolation='bilinear',
            ),
            dict(type='CenterCrop', crop_size=64),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
