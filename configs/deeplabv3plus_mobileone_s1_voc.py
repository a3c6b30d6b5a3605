# With VOC_TRAIN=train in the environment: only the downloaded masks, not those of SBD.
_base_ = [
    './_base_/models/deeplabv3plus_mobileone.py',
    './_base_/datasets/voc2012_{{$VOC_TRAIN:trainaug}}.py',
    './_base_/schedules/deeplabv3_50e.py',
    './_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(arch='s1', init_cfg=dict(checkpoint='mobileone_mm://s1-apple-unfused')),
    decode_head=dict(in_channels=1280, c1_in_channels=96, num_classes=21),
    auxiliary_head=dict(in_channels=512, num_classes=21),
)
