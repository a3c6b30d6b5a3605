"""SSDLite for 320 px; a leaf sets the size, its weights and the channels of its last two stages.

The backbone starts from ImageNet weights in training form and gives strides 16 and 32; four
depthwise-separable levels follow (5, 3, 2 and 1 cells). docs/recipes.md has the source of each
value. From scratch, for short runs:
    --cfg-options model.backbone.init_cfg._delete_=True
        model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit
"""

model = dict(
    type='SingleStageDetector',
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
        out_indices=(2, 3),
        init_cfg=dict(
            type='Pretrained', checkpoint='mobileone_mm://s0-apple-unfused', prefix='backbone'
        ),
    ),
    neck=dict(
        type='mobileone_mm.SSDNeck',
        in_channels=(256, 1024),
        out_channels=(256, 1024, 512, 256, 256, 128),
        level_strides=(2, 2, 2, 2),
        level_paddings=(1, 1, 1, 1),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=dict(type='BN', eps=1e-5, momentum=0.1),
        act_cfg=dict(type='ReLU'),
        init_cfg=dict(type='TruncNormal', layer='Conv2d', std=0.03),
    ),
    bbox_head=dict(
        type='mobileone_mm.SSDHead',
        in_channels=(256, 1024, 512, 256, 256, 128),
        num_classes=80,
        use_depthwise=True,
        norm_cfg=dict(type='BN', eps=1e-5, momentum=0.1),
        act_cfg=dict(type='ReLU'),
        init_cfg=dict(type='Normal', layer='Conv2d', std=0.03),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2, 3], [2, 3], [2, 3], [2, 3], [2, 3], [2, 3]],
            min_sizes=[48, 100, 150, 202, 253, 304],
            max_sizes=[100, 150, 202, 253, 304, 320],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        nms=dict(type='nms', iou_threshold=0.45),
        min_bbox_size=0,
        score_thr=0.02,
        max_per_img=200,
    ),
)
