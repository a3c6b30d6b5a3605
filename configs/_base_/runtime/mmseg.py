"""Runs on mmseg."""

_base_ = ['./common.py']

default_scope = 'mmseg'
# Images of every size are evaluated: a search for the fastest kernels would start anew each time.
env_cfg = dict(cudnn_benchmark=False)
default_hooks = dict(
    checkpoint=dict(save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook', draw=False),
)
visualizer = dict(
    type='SegLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer',
)
