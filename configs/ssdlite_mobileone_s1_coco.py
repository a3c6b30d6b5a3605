_base_ = [
    './_base_/models/ssdlite_mobileone.py',
    './_base_/datasets/coco_320.py',
    './_base_/schedules/ssdlite_200e.py',
    './_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(arch='s1', init_cfg=dict(checkpoint='mobileone_mm://s1-apple-unfused')),
    neck=dict(in_channels=(512, 1280), out_channels=(512, 1280, 512, 256, 256, 128)),
    bbox_head=dict(in_channels=(512, 1280, 512, 256, 256, 128)),
)
