_base_ = [
    './_base_/models/deeplabv3_mobileone.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/deeplabv3_50e.py',
    './_base_/runtime/mmseg.py',
]

model = dict(
    # Squeeze-and-excitation would tie each position to the size of the image; that of the
    # checkpoint is left out, and the log says so.
    backbone=dict(
        arch='s4',
        use_se=False,
        init_cfg=dict(checkpoint='mobileone_mm://s4-apple-unfused'),
    ),
    decode_head=dict(in_channels=2048, num_classes=150),
    auxiliary_head=dict(in_channels=896, num_classes=150),
)
