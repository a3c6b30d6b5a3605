"""ImageNet-1k at 224 px with AutoAugment, which the paper uses from S2 on."""

_base_ = ['./imagenet_224.py']

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mobileone_mm.LoadImage'),
            dict(type='RandomResizedCrop', scale=224, backend='pillow'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            # Filled with the mean color, in BGR order as the loaded image.
            dict(
                type='mobileone_mm.AutoAugment',
                policies='imagenet',
                hparams=dict(pad_val=[104, 116, 124]),
            ),
            dict(type='PackInputs'),
        ],
    ),
)
