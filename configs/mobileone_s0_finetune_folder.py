_base_ = [
    './_base_/models/mobileone.py',
    './_base_/datasets/folder_224.py',
    './_base_/schedules/finetune_20e.py',
    './_base_/runtime/mmpretrain.py',
]

model = dict(
    data_preprocessor=dict(num_classes=None),  # only batch augmentation asks for it
    backbone=dict(
        arch='s0',
        deploy=True,
        init_cfg=dict(type='Pretrained', checkpoint='mobileone_mm://s0-apple'),
    ),
    head=dict(num_classes=2, in_channels=1024, topk=(1,)),
)
