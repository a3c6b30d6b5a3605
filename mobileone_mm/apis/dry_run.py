"""Show the plan of a training instead of training."""

import tempfile
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ..data.checks.summary import data_table
from ..errors import InputError
from ..hooks.curriculum import CurriculumHook
from ..hooks.recalibrate import RecalibrateHook
from ..models.channels import check_channels
from ..runs.running import running
from ..training.folders import check_writable
from ..training.launch import is_main_process
from ..training.plan import Plan, make_plan
from ..training.plan_report import draw, report
from ..training.run_model import unwrapped
from ..weights.fit import checkpoint_for
from .train import prepare_training


def dry_run(
    config: str | Path,
    out: str | None = None,
    work_dir: str | None = None,
    resume: str | None = None,
    launcher: str = 'none',
    **flags: Any,
) -> Plan:
    """Print what a training would do as tables, and draw its schedules.

    :func:`~mobileone_mm.apis.train.train` prepares the run up to its first iteration, in a
    temporary folder. The measured steps change the weights in memory only.

    Args:
        out: The drawing, a ``.png``; by default ``plan.png`` in the work dir.
        work_dir: Folder of the run; nothing else is written there.
        resume: Must be None: the plan is that of the whole run.
        **flags: Other arguments of :func:`~mobileone_mm.apis.train.train`.
    """
    if resume is not None:
        raise InputError('--dry-run: shows the plan of the whole run; leave --resume out')
    if out and Path(out).suffix.lower() != '.png':
        raise InputError(f"--dry-run: got '{out}'; the drawing is a .png file")
    prepared = prepare_training(config, launcher=launcher, work_dir=work_dir, **flags)
    cfg = prepared.cfg
    image = Path(out).expanduser() if out else Path(cfg.work_dir, 'plan.png')
    check_writable(image.parent, '--dry-run')
    source = None if cfg.get('resume') else cfg.get('load_from')
    if source:  # a plan needs no weights, and mmengine warns of each head of other classes
        cfg.load_from = None
    cfg.log_level = 'WARNING'
    cfg.visualizer = {**cfg.get('visualizer', dict(type='Visualizer')), 'vis_backends': None}
    with tempfile.TemporaryDirectory(prefix='mobileone_mm_plan_') as folder:
        cfg.work_dir = folder
        try:
            with running(prepared, launcher) as runner:
                model = unwrapped(runner.model)
                check_channels(cfg.model, model)
                if source:
                    checkpoint_for(model, source, 'backbone')
                for hook in runner.hooks:
                    if isinstance(hook, RecalibrateHook):
                        hook.num_batches = 1  # it may refuse the run, but its result is not needed
                runner.register_hook(_PlanHook())
                runner.train()
        except _Planned as planned:
            plan: Plan = planned.args[0]
    if is_main_process():
        draw(plan, image, Path(config).stem)
        tables = prepared.table(), data_table(prepared.data), report(plan, str(config))
        print('\n\n'.join(filter(None, (*tables, f'Drawn in {image}'))))
    return plan


class _Planned(Exception):  # noqa: N818
    """Ends a run when its plan, the argument, is made."""


class _PlanHook(Hook):
    # After all other hooks, because each of them can refuse the run.
    priority = 'LOWEST'

    def before_train(self, runner: Any) -> None:
        hooks = (hook for hook in runner.hooks if isinstance(hook, CurriculumHook))
        raise _Planned(make_plan(runner, next(hooks, None)))
