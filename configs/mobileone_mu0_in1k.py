_base_ = [
    './_base_/models/mobileone.py',
    './_base_/datasets/imagenet_224.py',
    './_base_/schedules/imagenet_300e.py',  # or imagenet_300e_resolution.py: 160, 192, 224 px
    './_base_/runtime/mmpretrain.py',
]

# This project's reconstruction: the widths of the paper are not public.
model = dict(backbone=dict(arch='mu0'), head=dict(in_channels=384))
