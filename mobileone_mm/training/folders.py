"""The folders of a run: whether they can be written, and what a refused run leaves in them."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ..errors import InputError
from ..faults import user_fault
from ..files import make_folder, reason_of
from .launch import is_main_process
from .runner import Runner

_STEP = re.compile(r'(?:epoch|iter)_(\d+)\.pth$')


def check_writable(folder: str | Path, name: str) -> None:
    """Check that a folder, the value of the argument ``name``, can be written; leave no trace."""
    folder = Path(folder).expanduser()
    if not is_main_process():
        return
    try:
        with ExitStack() as undo:
            make_folder(folder, undo)
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                # An empty file needs no space, and would not show that the disk is full.
                file.write(b'\0' * 4096)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{name}: cannot write '{folder}': {reason_of(error)}") from error


class Progress(Hook):
    """Knows how far a run has come, and writes the config after its first iteration."""

    priority = 'LOWEST'  # the other hooks prepare the run at its start
    started = False  # everything is built, and the first loop runs
    done = False  # the first iteration is done

    def before_train(self, runner: Any) -> None:  # noqa: ARG002
        self.started = True

    before_test = before_train

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        self._write(runner, runner.work_dir)

    def after_test_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        # A test often runs in the work dir of the training, whose config must stay.
        self._write(runner, runner.log_dir)

    def _write(self, runner: Any, folder: str) -> None:
        if not self.done and isinstance(runner, Runner):
            runner.write_config(folder)
        self.done = True


@contextmanager
def nothing_left_behind(folder: str | Path) -> Iterator[Progress]:
    """Remove the log of a run that is refused before its first iteration.

    mmengine's Runner starts a log before it builds the model and reads the checkpoint. Other files of
    the work dir stay: another run may write them now. The yielded hook must be registered.
    """
    progress, known = Progress(), len(Runner.log_dirs)
    with ExitStack() as undo:  # removes new folders that are empty at the end
        make_folder(Path(folder).expanduser(), undo)
        try:
            yield progress
        except Exception as error:
            if user_fault(error) is not None and not progress.done and is_main_process():
                for log_dir in Runner.log_dirs[known:]:
                    shutil.rmtree(log_dir, ignore_errors=True)
            raise


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """Return the latest checkpoint of a work dir, or None."""
    folder = Path(work_dir)
    note = folder / 'last_checkpoint'
    # mmengine writes it in the encoding of the locale, and with the path of the original folder.
    noted = note.read_text(encoding='utf-8', errors='replace').strip() if note.is_file() else ''
    for candidate in (folder / Path(noted).name, Path(noted)):
        if candidate.is_file():
            return str(candidate)
    files = folder.glob('*_*.pth')
    numbered = [(int(found[1]), str(f)) for f in files if (found := _STEP.match(f.name))]
    return max(numbered)[1] if numbered else None
