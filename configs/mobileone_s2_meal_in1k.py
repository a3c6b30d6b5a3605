_base_ = [
    './_base_/models/mobileone_meal.py',
    './_base_/datasets/imagenet_224.py',
    './_base_/schedules/imagenet_meal_180e.py',
    './_base_/runtime/mmpretrain.py',
]

model = dict(backbone=dict(arch='s2'), head=dict(in_channels=2048))
train_dataloader = dict(batch_size=64)
# MEAL V2 starts from trained weights; None starts from scratch.
load_from = 'mobileone_mm://s2-openmmlab'
