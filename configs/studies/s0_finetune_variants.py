"""Forms for fine-tuning from published weights, for configs/mobileone_s0_finetune_folder.py."""

_LIFTED = {'model.backbone.deploy': False}
_RECALIBRATE = dict(type='mobileone_mm.RecalibrateHook')
_EMA = dict(type='EMAHook', momentum=0.02, update_buffers=True, priority='ABOVE_NORMAL')

variants = {
    'deploy form': {},
    'branches, statistics measured first': {**_LIFTED, 'custom_hooks': [_RECALIBRATE]},
    'branches, neutral statistics': _LIFTED,
    'deploy form, EMA': {'custom_hooks': [_EMA]},
}
