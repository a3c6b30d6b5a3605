_base_ = [
    './_base_/models/mobileone.py',
    './_base_/datasets/imagenet_224.py',
    './_base_/schedules/imagenet_300e.py',
    './_base_/runtime/mmpretrain.py',
]

model = dict(backbone=dict(arch='s0'), head=dict(in_channels=1024))
