_base_ = [
    './_base_/models/mobileone.py',
    './_base_/datasets/imagenet_224.py',
    './_base_/schedules/imagenet_300e.py',  # or imagenet_300e_resolution.py: 160, 192, 224 px
    './_base_/runtime/mmpretrain.py',
]

model = dict(backbone=dict(arch='s1'), head=dict(in_channels=1280))
