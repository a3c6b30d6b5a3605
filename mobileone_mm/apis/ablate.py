"""Train variants of one config with the same seeds, and compare them seed by seed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from mmengine.config import Config

from ..benchmark.ablation import draw, summarise, table
from ..errors import InputError, check_least, one_line
from ..files import atomic_text
from ..training.folders import check_writable
from ..training.launch import ALLOCATOR
from .train import prepare_training


class Run(NamedTuple):
    """One training: a variant with a seed, its whole config as Python, its metric and its work dir."""

    variant: str
    seed: int
    text: str
    metric: str
    folder: Path

    @property
    def key(self) -> str:
        """A digest of everything that the result depends on."""
        parts = json.dumps(self[:4])
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


def ablate(
    config: str | Path,
    variants: str | Path,
    root: Path,
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] | None = None,
    metric: str | None = None,
    jobs: int = 1,
    keep_checkpoints: bool = False,
    work_dir: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train every variant of a config with every seed, and compare each with the first variant.

    Runs of one seed share the initial weights and the order of the images as far as the variant
    allows. Each run is an ordinary run of ``tools/train.py`` in ``WORK_DIR/<variant>/seed_<n>``.
    The last value of the metric counts. A second call skips the runs that are done.

    ``root`` is the folder that holds ``tools``; the other arguments are those of the tool. Returns the
    summary, see :func:`~mobileone_mm.benchmark.ablation.summarise`. An InputError says that an argument
    cannot be used, or that a run failed; finished runs are kept.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f'--seeds: got {list(seeds)}; expected different integers of at least 0')
    check_least(1, jobs=jobs)
    folder = Path(work_dir or Path('work_dirs', Path(variants).stem)).expanduser()
    check_writable(folder, '--work-dir')
    known = read_variants(variants)
    for name in only or ():
        if name not in known:
            raise InputError(f"--only: got '{name}'; the variants are {', '.join(known)}")
    first = next(iter(known))
    configs = {
        name: _configure(config, name, {**(cfg_options or {}), **options})
        for name, options in known.items()
        if only is None or name in only or name == first
    }
    best = configs[first].get('default_hooks', {}).get('checkpoint', {}).get('save_best')
    metric = metric or best
    if not isinstance(metric, str) or metric == 'auto':
        raise InputError('--metric: save_best of the config names no metric; give its name')
    runs = []
    for seed in seeds:
        for name, cfg in configs.items():
            cfg.merge_from_dict({'randomness.seed': seed})
            place = folder / _place(name) / f'seed_{seed}'
            runs.append(Run(name, seed, cfg.pretty_text, metric, place))
    train = _Trainer(root / 'tools' / 'train.py', jobs, keep_checkpoints, device)
    values = _run_all(runs, folder, train)
    summary = summarise(values, metric)
    atomic_text(folder / 'ablation.json', json.dumps(summary, indent=2) + '\n')
    text = '\n'.join(table(summary))
    atomic_text(folder / 'ablation.md', text + '\n')
    draw(summary, folder / 'ablation.png')
    print(f'\n{text}\n\nResults in {folder / "ablation.json"}, .md and .png')
    return summary


def read_variants(path: str | Path) -> dict[str, dict[str, Any]]:
    """Read the options of two or more variants, in the order of the file, or raise an InputError."""
    try:
        found = Config.fromfile(path).get('variants')
    except Exception as error:  # the file is a program: it can raise anything
        raise InputError(f"variants '{path}': cannot be read: {one_line(error)}") from error
    if not isinstance(found, Mapping) or len(found) < 2:
        raise InputError(
            f"variants '{path}': expected a dict 'variants' with two or more names, each with a dict "
            'of options by dotted key'
        )
    places = [_place(name) for name in found]
    for name, options in found.items():
        if not isinstance(options, Mapping):
            raise InputError(f"variants '{path}': '{name}' is not a dict of options by dotted key")
        if places.count(_place(name)) > 1:
            raise InputError(
                f"variants '{path}': '{name}' and another would share the folder '{_place(name)}'; "
                'rename one'
            )
    return {str(name): dict(options) for name, options in found.items()}


def _configure(config: str | Path, name: str, options: dict[str, Any]) -> Config:
    """Read the config of a variant, after the checks that its run would make."""
    try:
        prepared = prepare_training(config, options, work_dir=tempfile.gettempdir())
    except InputError as error:
        raise InputError(f"variant '{name}': {error}") from error
    for key in ('val_dataloader', 'val_evaluator'):
        if prepared.written.get(key) is None:
            raise InputError(f"variant '{name}': the config has no '{key}'")
    return prepared.written  # each run adapts the config to its machine


def _place(name: Any) -> str:
    return ''.join(c if c.isalnum() or c in '.-' else '_' for c in str(name))


def _run_all(runs: list[Run], folder: Path, train: _Trainer) -> dict[str, dict[int, float]]:
    record = folder / 'runs.json'
    try:
        found = json.loads(record.read_text()) if record.is_file() else {}
        done = {str(key): float(value) for key, value in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"--work-dir: '{record}' is not a record of runs ({error}); remove it, or choose another "
            'folder'
        ) from error
    left = [run for run in runs if run.key not in done]
    print(f'{len(runs)} runs, {len(runs) - len(left)} of them done before', flush=True)
    with ThreadPoolExecutor(train.jobs) as pool:
        tasks = {pool.submit(train, run): run for run in left}
        try:
            for number, task in enumerate(as_completed(tasks), 1):
                run, value = tasks[task], task.result()
                done[run.key] = value
                atomic_text(record, json.dumps(done, indent=2) + '\n')
                result = f'{run.variant}, seed {run.seed}: {run.metric} {value:g}'
                print(f'[{number}/{len(left)}] {result}', flush=True)
        except BaseException:
            train.stop()
            raise
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        values.setdefault(run.variant, {})[run.seed] = done[run.key]
    return values


@dataclass
class _Trainer:
    """Trains one run in a process of its own and returns its metric; several threads call it."""

    tool: Path
    jobs: int
    keep_checkpoints: bool
    device: str | None
    # A process starts and is registered under the lock, so that stop() sees every process.
    _lock: Lock = field(default_factory=Lock)
    _stopped: bool = False
    _running: set[subprocess.Popen] = field(default_factory=set)

    def __call__(self, run: Run) -> float:
        config, log = run.folder / 'config.py', run.folder / 'log.txt'
        atomic_text(config, run.text)
        command = [sys.executable, str(self.tool), str(config), '--work-dir', str(run.folder)]
        command += ['--device', self.device] if self.device is not None else []
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        limits = {'OMP_NUM_THREADS': str(threads)} if self.jobs > 1 else {}
        environment = {'GLIBC_TUNABLES': ALLOCATOR, **limits, **os.environ}
        with log.open('w') as file:
            with self._lock:
                if self._stopped:
                    raise InputError('stopped')
                process = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT, env=environment
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if not self.keep_checkpoints:
            for weights in run.folder.glob('*.pth'):
                weights.unlink()
        if code:
            lines = log.read_text(errors='replace').splitlines() or ['']
            raise InputError(
                f"variant '{run.variant}', seed {run.seed}: exit code {code}: {lines[-1][:300]}; the "
                f"whole log is '{log}'"
            )
        return _last_value(run)

    def stop(self) -> None:
        """End all runs in progress, and start no other."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def _last_value(run: Run) -> float:
    """Return the last value of the metric in the log of mmengine's local back end."""
    files = sorted(run.folder.glob('*/vis_data/scalars.json'))
    lines = map(json.loads, files[-1].read_text().splitlines()) if files else ()
    found = [line[run.metric] for line in lines if run.metric in line]
    if not found:
        raise InputError(
            f"--metric: '{run.metric}' is not in the log '{run.folder / 'log.txt'}'; does the run "
            'validate after its last epoch?'
        )
    return float(found[-1])
