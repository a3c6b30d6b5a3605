"""The operators of ``mmcv._ext``, one file each, with its calling conventions.

Outputs that mmcv allocates are filled in place; thresholds, offsets and methods are keywords.
"""
