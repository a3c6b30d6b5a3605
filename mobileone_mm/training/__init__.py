"""What mmengine's training lacks: exact resume, checkpoints that survive a full disk, CPU groups.

Importing it registers the hooks of this room under scope ``mobileone_mm``.
"""

from __future__ import annotations

from .averages import AverageCheckHook
from .checkpoint_hook import CheckpointHook
from .curriculum import CurriculumHook
from .deploy_eval import DeployEvalHook
from .recalibrate import RecalibrateHook
from .schedule_log import ScheduleLogHook
from .seeding import IterationSeedHook
from .weights_hook import CheckpointCheckHook

__all__ = [
    'AverageCheckHook',
    'CheckpointCheckHook',
    'CheckpointHook',
    'CurriculumHook',
    'DeployEvalHook',
    'IterationSeedHook',
    'RecalibrateHook',
    'ScheduleLogHook',
]
