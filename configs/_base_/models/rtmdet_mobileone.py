"""RTMDet for phones at 320 px; a leaf sets the size, its weights and channels.

Not in the paper. mmdet's neck and head of RTMDet with ReLU, depthwise convolutions and few channels
after a 1x1 convolution for each level. The head has its own convolutions for each level
(share_conv=False): a kernel with several BNs cannot be folded. docs/recipes.md has figures.
"""

model = dict(
    type='RTMDet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    backbone=dict(
        type='mobileone_mm.MobileOne',
        arch='s0',
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(
            type='Pretrained', checkpoint='mobileone_mm://s0-apple-unfused', prefix='backbone'
        ),
    ),
    neck=[
        dict(
            type='ChannelMapper',
            in_channels=[128, 256, 1024],
            out_channels=96,
            kernel_size=1,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
            act_cfg=dict(type='ReLU'),
            num_outs=3,
        ),
        dict(
            type='CSPNeXtPAFPN',
            in_channels=[96, 96, 96],
            out_channels=96,
            num_csp_blocks=1,
            use_depthwise=True,
            expand_ratio=0.5,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
            act_cfg=dict(type='ReLU'),
        ),
    ],
    bbox_head=dict(
        type='RTMDetSepBNHead',
        num_classes=80,
        in_channels=96,
        feat_channels=96,
        stacked_convs=2,
        share_conv=False,
        use_depthwise=True,
        pred_kernel_size=1,
        exp_on_reg=True,
        with_objectness=False,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        act_cfg=dict(type='ReLU'),
    ),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        nms=dict(type='nms', iou_threshold=0.65),
        min_bbox_size=0,
        score_thr=0.001,
        max_per_img=300,
    ),
)
