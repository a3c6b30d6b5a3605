"""DeepLabV3+ at output stride 16; a leaf sets the size, its weights, channels and classes.

Not in the paper. Separable ASPP and a decoder at stride 4 for sharper outlines. Smaller and faster:
    --cfg-options model.decode_head.channels=128
docs/recipes.md has figures.
"""

_base_ = ['./deeplabv3_mobileone.py']

model = dict(
    backbone=dict(out_indices=(0, 2, 3)),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead', in_index=2, c1_in_channels=48, c1_channels=48
    ),
    auxiliary_head=dict(in_index=1),
)
