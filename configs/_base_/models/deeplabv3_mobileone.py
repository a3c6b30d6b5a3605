"""DeepLabV3 at output stride 16; a leaf sets the size, its weights, channels and classes.

The backbone starts from ImageNet weights in training form. It is dilated, so both outputs have
stride 16. The rates of ASPP are those of DeepLabV3 for that stride. docs/recipes.md has the
source of each value. From scratch, for short runs:
    --cfg-options model.backbone.init_cfg._delete_=True
        model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit
"""

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type='mobileone_mm.MobileOne',
        arch='s0',
        out_indices=(2, 3),
        output_stride=16,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(
            type='Pretrained', checkpoint='mobileone_mm://s0-apple-unfused', prefix='backbone'
        ),
    ),
    decode_head=dict(
        type='ASPPHead',
        in_channels=1024,
        in_index=1,
        channels=256,
        dilations=(1, 6, 12, 18),
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0
        ),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=256,
        in_index=0,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=21,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=0.4
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
