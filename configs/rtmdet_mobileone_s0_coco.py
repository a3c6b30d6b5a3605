_base_ = [
    './_base_/models/rtmdet_mobileone.py',
    './_base_/datasets/coco_320.py',
    './_base_/schedules/rtmdet_200e.py',
    './_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(arch='s0', init_cfg=dict(checkpoint='mobileone_mm://s0-apple-unfused')),
    bbox_head=dict(in_channels=96, feat_channels=96),
)
