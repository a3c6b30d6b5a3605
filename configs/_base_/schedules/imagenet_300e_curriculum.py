"""The ImageNet recipe with the curriculum of S2 to S4; it needs a pipeline with AutoAugment."""

_base_ = ['./imagenet_300e.py']

custom_hooks = [
    dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL'),
    # Epochs of a run of 300, from 0. A run of another length scales them.
    dict(
        type='mobileone_mm.CurriculumHook',
        total=300,
        phases=[
            dict(begin=0, resolution=160, strength=0.3),
            dict(begin=38, resolution=192, strength=0.7),
            dict(begin=113, resolution=224, strength=1.0),
        ],
    ),
]
