"""The operators that stand in for compiled ones, one file each, on plain torch.

Calling conventions are those of ``mmcv._ext``, since mmcv's own Python code calls them: outputs
that mmcv allocates are filled in place, and thresholds, offsets and methods are keyword arguments.
"""
