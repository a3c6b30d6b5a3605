"""Runtime of mmseg."""

_base_ = ['./common.py']

default_scope = 'mmseg'
# Evaluation has images of many sizes: cuDNN would search for the fastest kernels for each size.
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
