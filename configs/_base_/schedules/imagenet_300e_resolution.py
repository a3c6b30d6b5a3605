"""The ImageNet recipe with the curriculum's resolution only, for pipelines without AutoAugment.

The paper does not say whether S0 and S1 use it.
"""

_base_ = ['./imagenet_300e.py']

custom_hooks = [
    dict(type='EMAHook', momentum=5e-4, update_buffers=True, priority='ABOVE_NORMAL'),
    dict(
        type='mobileone_mm.CurriculumHook',
        total=300,
        phases=[
            dict(begin=0, resolution=160),
            dict(begin=38, resolution=192),
            dict(begin=113, resolution=224),
        ],
    ),
]
