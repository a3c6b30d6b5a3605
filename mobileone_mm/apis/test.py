"""Evaluate a classifier, detector or segmentor on the test set of its config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..inference.draw import DrawHook
from ..inference.results import add_output, check_output, write_metrics
from ..runs.prepare import TEST, prepare
from ..runs.running import running
from ..training.folders import check_writable
from ..training.launch import check_launcher, select_device


def evaluate(
    config: str | Path,
    checkpoint: str | Path,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    score_thr: float = 0.3,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    device: str | None = None,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of its config, and return the metrics by name.

    An InputError says that an argument does not fit; nothing is evaluated then.

    Args:
        out: File for predictions (``.pkl``; ``.csv`` for a classifier) or metrics (``.json``).
        show_dir: Folder for drawn predictions.
        score_thr: Lowest score of a drawn box, 0 to 1.
        tta: Test-time augmentation, as ``tta_model`` and ``tta_pipeline`` of the config say.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
    """
    check_launcher(launcher)
    select_device(device)
    if not 0 <= score_thr <= 1:
        raise InputError(f'--score-thr: got {score_thr}; expected 0 to 1')
    prepared = prepare(config, cfg_options, TEST, work_dir=work_dir, checkpoint=checkpoint, tta=tta)
    if out:
        check_output(out, [config, checkpoint])
    if show_dir:
        if launcher != 'none':
            # mmengine's visualizer draws in the first process alone.
            raise InputError('--show-dir: only one process can draw; leave --launcher out')
        check_writable(show_dir, '--show-dir')
    with running(prepared, launcher) as runner:
        if show_dir:
            runner.register_hook(DrawHook(show_dir, score_thr))
        add_output(runner, out)
        metrics = runner.test()
        write_metrics(runner, metrics, out)
    return metrics
