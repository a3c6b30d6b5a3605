# With VOC_TRAIN=train in the environment: only the downloaded masks, not those of SBD.
_base_ = [
    './_base_/models/deeplabv3_mobileone.py',
    './_base_/datasets/voc2012_{{$VOC_TRAIN:trainaug}}.py',
    './_base_/schedules/deeplabv3_50e.py',
    './_base_/runtime/mmseg.py',
]

model = dict(
    # With squeeze-and-excitation, each position would depend on the size of the image. The loader
    # drops that of the checkpoint and logs it.
    backbone=dict(
        arch='s4',
        use_se=False,
        init_cfg=dict(checkpoint='mobileone_mm://s4-apple-unfused'),
    ),
    decode_head=dict(in_channels=2048, num_classes=21),
    auxiliary_head=dict(in_channels=896, num_classes=21),
)
