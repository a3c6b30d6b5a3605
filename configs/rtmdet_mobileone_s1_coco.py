_base_ = [
    './_base_/models/rtmdet_mobileone.py',
    './_base_/datasets/coco_320.py',
    './_base_/schedules/rtmdet_200e.py',
    './_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(arch='s1', init_cfg=dict(checkpoint='mobileone_mm://s1-apple-unfused')),
    neck=[
        dict(
            type='ChannelMapper',
            in_channels=[192, 512, 1280],
            out_channels=128,
            kernel_size=1,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
            act_cfg=dict(type='ReLU'),
            num_outs=3,
        ),
        dict(
            type='CSPNeXtPAFPN',
            in_channels=[128, 128, 128],
            out_channels=128,
            num_csp_blocks=1,
            use_depthwise=True,
            expand_ratio=0.5,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
            act_cfg=dict(type='ReLU'),
        ),
    ],
    bbox_head=dict(in_channels=128, feat_channels=128),
)
