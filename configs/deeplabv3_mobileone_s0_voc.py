# With VOC_TRAIN=train in the environment: only the downloaded masks, not those of SBD.
_base_ = [
    './_base_/models/deeplabv3_mobileone.py',
    './_base_/datasets/voc2012_{{$VOC_TRAIN:trainaug}}.py',
    './_base_/schedules/deeplabv3_50e.py',
    './_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(arch='s0', init_cfg=dict(checkpoint='mobileone_mm://s0-apple-unfused')),
    decode_head=dict(in_channels=1024, num_classes=21),
    auxiliary_head=dict(in_channels=256, num_classes=21),
)
