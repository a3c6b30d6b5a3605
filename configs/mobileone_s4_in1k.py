_base_ = [
    './_base_/models/mobileone.py',
    './_base_/datasets/imagenet_224_autoaugment.py',
    './_base_/schedules/imagenet_300e_curriculum.py',
    './_base_/runtime/mmpretrain.py',
]

model = dict(backbone=dict(arch='s4'), head=dict(in_channels=2048))
