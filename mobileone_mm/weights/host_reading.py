"""Let the hosts' own scripts read the Runner's checkpoints, and weights by name.

The import does this. ``registry.py`` names the module among the locations of the models: a model is
always built before its checkpoint is read, and so ``import mobileone_mm`` need not load torch.
"""

from .mmengine_loader import allow_mmengine_globals, use_named_weights

allow_mmengine_globals()
use_named_weights()
