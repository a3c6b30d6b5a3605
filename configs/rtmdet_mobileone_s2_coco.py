_base_ = './rtmdet_mobileone_s1_coco.py'

model = dict(
    backbone=dict(arch='s2', init_cfg=dict(checkpoint='mobileone_mm://s2-apple-unfused')),
    # mmengine replaces a list as a whole. Only in_channels of the ChannelMapper differs from S1.
    neck=[
        dict(
            type='ChannelMapper',
            in_channels=[256, 640, 2048],
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
)
