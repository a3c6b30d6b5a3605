"""The recipe, each time without one part of it, for s0_scratch.py."""

_S0 = dict(_delete_=True, num_blocks=(2, 8, 10, 1), width_factor=(0.75, 1.0, 1.0, 2.0))
_PLAIN = {
    'model.backbone.arch': _S0,
    'model.backbone.use_scale': False,
    'model.backbone.use_identity': False,
}
_USUAL = {
    'model.backbone.init_cfg': [
        dict(type='Kaiming', layer=['Conv2d']),
        dict(type='Constant', val=1, layer=['_BatchNorm']),
    ]
}
_EMA = dict(type='EMAHook', momentum=0.05, update_buffers=True, priority='ABOVE_NORMAL')
_CURRICULUM = dict(
    type='mobileone_mm.CurriculumHook',
    total=300,
    phases=[
        dict(begin=0, resolution=48, strength=0.3),
        dict(begin=38, resolution=56, strength=0.7),
        dict(begin=113, resolution=64, strength=1.0),
    ],
)

variants = {
    'whole recipe': {},
    'k = 1': {'model.backbone.arch': _S0},
    'usual start': _USUAL,
    # NearIdentityInit initializes branches.
    'no branches, usual start': {**_PLAIN, **_USUAL},
    'weight decay not annealed': {'param_scheduler.2.eta_min_ratio': 1.0},
    'no curriculum': {'custom_hooks': [_EMA]},
    'no EMA': {'custom_hooks': [_CURRICULUM]},
}
