"""The config pass: every tool reads its config here once, changes it once and checks it once.

The changes have one order and one name each. A user switches a change off by its name, in the config
(``changes = dict(faster_transforms=False)``) or on the command line
(``--cfg-options changes.faster_transforms=False``). Every tool logs what was changed; a run also
writes it into its config, under the same key.
"""

import copy
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.registry import DefaultScope

from ..config.check import check_parts
from ..config.read import load_config
from ..config.spelling import did_you_mean
from ..config.tree import flatten, mapping
from ..data.checks.checkpoint_classes import check_run_checkpoint, check_teachers
from ..data.checks.loaders import check_data
from ..data.checks.summary import SplitSummary, data_table
from ..data.coco import use_coco_reader
from ..errors import InputError
from ..training.folders import check_writable
from ..training.launch import is_first_process
from . import changes as steps
from .changes import Flags

#: every change by its name, in the order in which the changes are made
CHANGES: dict[str, Callable[[Config, Flags], None]] = {
    step.__name__: step
    for step in (
        steps.no_validate, steps.amp, steps.auto_scale_lr, steps.tensorboard, steps.tta,
        steps.workers, steps.work_dir, steps.resume, steps.load_from, steps.broken_files,
        steps.image_suffixes, steps.stored_outputs, steps.faster_transforms, steps.checks,
    )
}  # fmt: skip
#: changes without which a run has no folder, no weights, or weights that were never fitted
_REQUIRED = ('work_dir', 'load_from', 'checks')
#: packages of the hosts, in both distributions
_PACKAGES = {
    'mmpretrain': 'mmpretrain or onedl-mmpretrain',
    'mmdet': 'mmdet or onedl-mmdetection',
    'mmseg': 'mmsegmentation or onedl-mmsegmentation',
}


@dataclass(frozen=True)
class Purpose:
    """What a tool needs of a config."""

    needs: tuple[str, ...] = ()  # top-level keys that it must have besides `model`
    loaders: tuple[str, ...] = ()  # loaders whose data is checked
    changes: tuple[str, ...] = ()  # names of the changes that are made
    evaluator: str | None = None  # of a run of the Runner; None if the tool has no such run
    teachers: bool = False  # whether the tool uses the teachers of a distilling classifier


READ = Purpose()
TRAIN = Purpose(
    needs=('train_dataloader', 'train_cfg', 'optim_wrapper'),
    loaders=('train_dataloader', 'val_dataloader'),
    changes=tuple(name for name in CHANGES if name not in ('tta', 'load_from')),
    evaluator='val_evaluator',
    teachers=True,
)
TEST = Purpose(
    needs=('test_dataloader', 'test_cfg', 'test_evaluator'),
    loaders=('test_dataloader',),
    changes=('tta', 'workers', 'work_dir', 'load_from', 'broken_files', 'image_suffixes', 'checks'),
    evaluator='test_evaluator',
)
PREDICT = Purpose(changes=('broken_files',))
#: the training images as the model gets them
TRAIN_IMAGES = Purpose(
    needs=('train_dataloader',),
    loaders=('train_dataloader',),
    changes=('workers', 'broken_files', 'image_suffixes', 'faster_transforms'),
)
#: the training images, with the transforms as the user wrote them
TEACHERS = Purpose(
    needs=('train_dataloader',),
    loaders=('train_dataloader',),
    changes=('broken_files', 'image_suffixes'),
    teachers=True,
)
#: the tool checks the test data itself, if it uses the data
ROBUSTNESS = Purpose(
    needs=('test_dataloader',), changes=('workers', 'work_dir', 'broken_files', 'image_suffixes')
)


@dataclass
class Prepared:
    """A config that is ready for its purpose."""

    cfg: Config  # with all changes; `cfg.changes` lists them
    written: Config  # as the user wrote it, with the overrides and without the changes
    #: what each change did, one `path: old -> new` a value; None if it is switched off
    changes: dict[str, list[str] | None] = field(default_factory=dict)
    data: list[SplitSummary] = field(default_factory=list)  # what the run gets from its datasets

    def table(self) -> str:
        """Return the changes as a short table, one line each."""
        lines = [f'  {name:17}  {_short(done)}' for name, done in self.changes.items()]
        title = 'Changes of the config (to switch one off: --cfg-options changes.NAME=False):'
        return '\n'.join([title, *lines])

    def log(self, logger: MMLogger | str = 'current') -> None:
        """Log the tables of the changes and of the data, if there are any."""
        for table in (self.table() if self.changes else '', data_table(self.data)):
            if table:
                print_log(table, logger)


def prepare(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    purpose: Purpose = READ,
    **flags: Any,
) -> Prepared:
    """Read a config once, change it once and check it once; an InputError names what does not fit.

    The default scope of the process becomes that of the config. The options are those of
    ``--cfg-options``, the flags are attributes of :class:`~mobileone_mm.runs.changes.Flags`.
    """
    cfg = load_config(path, options, purpose.needs)
    _use_scope(cfg.get('default_scope'))
    off = _switched_off(cfg)
    left_out: dict[str, list[str] | None] = {name: None for name in purpose.changes if name in off}
    prepared = Prepared(cfg, copy.deepcopy(cfg), left_out)
    given = Flags(config=path, **flags)
    _check_flags(given, off)
    for name, change in CHANGES.items():
        if name in purpose.changes and name not in off:
            before = flatten(cfg.to_dict(), whole_lists=True)
            change(cfg, given)
            if done := _differences(before, flatten(cfg.to_dict(), whole_lists=True)):
                prepared.changes[name] = done
    if off or prepared.changes:
        made = {name: done for name, done in prepared.changes.items() if done}
        cfg.changes = {**dict.fromkeys(off, False), **made}
    if purpose.evaluator is not None:
        check_parts(cfg, purpose.evaluator)
    if cfg.get('default_scope') == 'mmdet':
        use_coco_reader()
    if is_first_process():
        prepared.data = check_data(cfg, purpose.loaders)
        if purpose.evaluator is not None:
            check_run_checkpoint(cfg, purpose.loaders, tests=purpose is TEST)
        if purpose.teachers:
            check_teachers(cfg)
    if 'work_dir' in purpose.changes:
        check_writable(cfg.work_dir, '--work-dir')
        out_dir = mapping(mapping(cfg.get('default_hooks')).get('checkpoint')).get('out_dir')
        if purpose is TRAIN and isinstance(out_dir, str) and '://' not in out_dir:
            check_writable(out_dir, 'default_hooks.checkpoint.out_dir')
    if purpose.evaluator is None:  # a Runner logs the table into the file of its run
        prepared.log()
    return prepared


def _use_scope(scope: str | None) -> None:
    """Make the config's host, which must be installed, the default scope of this process."""
    if scope is None:
        return
    if importlib.util.find_spec(scope) is None:
        package = _PACKAGES.get(scope, scope)
        raise InputError(
            f"config: default_scope is '{scope}', which is not installed; install {package}"
        )
    DefaultScope.get_instance(f'{scope}-{datetime.now().timestamp()}', scope_name=scope)


def _check_flags(given: Flags, off: list[str]) -> None:
    for name in off:
        flag = 'stop_at_broken_images' if name == 'broken_files' else name
        if getattr(given, flag, None):
            raise InputError(
                f'--{flag.replace("_", "-")}: contradicts changes.{name}=False; leave one of them out'
            )


def _switched_off(cfg: Config) -> list[str]:
    given = {} if cfg.get('changes') is None else cfg.changes
    if not isinstance(given, Mapping):
        raise InputError(f'changes: got {given!r}; expected a dict such as dict(workers=False)')
    for name, value in given.items():
        if name not in CHANGES:
            raise InputError(f"config: changes has no '{name}'{did_you_mean(name, CHANGES)}")
        # A config that a run has written lists what was changed.
        if not isinstance(value, (bool, list)):
            raise InputError(f'changes.{name}: got {value!r}; expected False or True')
        if value is False and name in _REQUIRED:
            raise InputError(f'changes.{name}: got False; a run needs this change, remove the line')
    return [name for name, value in given.items() if value is False]


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a line for each value that is new, other or gone."""
    lines, absent = [], '(not set)'
    for path in dict.fromkeys([*before, *after]):
        old, new = before.get(path, absent), after.get(path, absent)
        if old is not new and (type(old) is not type(new) or old != new):
            lines.append(f'{path}: {old} -> {new}')
    return lines


def _short(done: list[str] | None) -> str:
    if done is None:
        return 'switched off'
    first = done[0] if len(done[0]) <= 100 else f'{done[0][:97]}...'
    return first + (f' (and {len(done) - 1} more)' if len(done) > 1 else '')
