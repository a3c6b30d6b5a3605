"""Train, test, convert and predict on drawn images, with the project's tools."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileone_mm.apis.browse import contact_sheet
from mobileone_mm.data.loading import read_image
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.files import atomic_text
from mobileone_mm.inference.draw import save_image
from mobileone_mm.training.folders import latest_checkpoint
from mobileone_mm.training.launch import ALLOCATOR

from .generator import LAYOUTS, make

# Least share of the best metric that counts as learned.
TARGET = 0.7


@dataclass(frozen=True)
class Job:
    """One demo.

    Attributes:
        config: The config to train.
        layout: Layout of the drawn data, a key of ``LAYOUTS``.
        metric: Metric that must reach ``TARGET``.
        best: Its best value.
        train_options: ``--cfg-options`` of training, which shorten the schedule for two cores.
        test_options: ``--cfg-options`` of training, testing and conversion.
    """

    config: str
    layout: str
    metric: str
    best: float
    train_options: tuple[str, ...]
    test_options: tuple[str, ...] = ()

    @property
    def root_variable(self) -> str:
        """Environment variable of its data root."""
        return f'{self.layout.upper()}_ROOT'


# No ImageNet weights: the demo needs no network.
_SCRATCH = (
    'model.backbone.init_cfg._delete_=True',
    'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit',
)


def _training(lr: float, batch_size: int, epochs: int, warmup: int) -> tuple[str, ...]:
    return (
        'optim_wrapper.optimizer._delete_=True',
        'optim_wrapper.optimizer.type=AdamW',
        'optim_wrapper.optimizer.weight_decay=0.01',
        f'optim_wrapper.optimizer.lr={lr}',
        f'train_dataloader.batch_size={batch_size}',
        'train_dataloader.num_workers=1',
        f'param_scheduler.0.end={warmup}',
        f'param_scheduler.1.end={epochs}',
        'param_scheduler.1.eta_min=1e-5',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        'default_hooks.logger.interval=25',
    )


JOBS = {
    'det': Job(
        config='ssdlite_mobileone_s2_coco',
        layout='coco',
        metric='coco/bbox_mAP_50',
        best=1.0,
        train_options=(
            *_SCRATCH,
            *_training(lr=1e-3, batch_size=4, epochs=3, warmup=25),
            'train_dataloader.dataset.times=1',
            # In three epochs, Expand and MinIoURandomCrop only make the objects small.
            'train_dataloader.dataset.dataset.pipeline.2.prob=0.0',
            'train_dataloader.dataset.dataset.pipeline.3.min_crop_size=1.0',
        ),
    ),
    'cls': Job(
        config='mobileone_s1_in1k',
        layout='imagenet',
        metric='accuracy/top1',
        best=100.0,
        train_options=(
            'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit',
            *_training(lr=1e-3, batch_size=16, epochs=6, warmup=1),
            'param_scheduler.1.begin=1',
            'param_scheduler.2.eta_min_ratio=1e-3',
            # The average must follow the weights within a hundred iterations.
            'custom_hooks.0.momentum=0.1',
        ),
    ),
    'seg': Job(
        config='deeplabv3_mobileone_s0_voc',
        layout='voc',
        metric='mIoU',
        best=100.0,
        train_options=(
            *_SCRATCH,
            *_training(lr=2e-3, batch_size=4, epochs=5, warmup=20),
            # From scratch, all layers need the same learning rate, and no average follows so fast.
            'optim_wrapper.paramwise_cfg.custom_keys._delete_=True',
            'custom_hooks=[]',
            'train_dataloader.dataset.pipeline.2.scale=(256,256)',
            'train_dataloader.dataset.pipeline.2.ratio_range=(0.9,1.3)',
            'train_dataloader.dataset.pipeline.3.crop_size=(224,224)',
            'model.data_preprocessor.size=(224,224)',
        ),
        # The drawn images are half the size of VOC's.
        test_options=(
            'val_dataloader.dataset.pipeline.1.scale=(256,256)',
            'test_dataloader.dataset.pipeline.1.scale=(256,256)',
        ),
    ),
}


class Demo:
    """Run the steps of one task in a folder; a step that has succeeded is not repeated.

    Args:
        task: ``det``, ``cls`` or ``seg``.
        root: A folder with ``configs`` and ``tools``, such as the repository.
        folder: Where all files are written.
    """

    def __init__(self, task: str, root: Path, folder: Path) -> None:
        if task not in JOBS:
            raise InputError(f"task: got '{task}'; expected one of {', '.join(JOBS)}")
        if not (root / 'configs').is_dir() or not (root / 'tools').is_dir():
            raise InputError(
                f"root: '{root}' has no configs and tools; run the demo from a checkout"
            )
        self.job, self.root, self.folder = JOBS[task], root, folder.resolve()
        self.config = root / 'configs' / f'{self.job.config}.py'
        self.work_dir = self.folder / 'train'
        self.deployed = self.folder / 'deploy.pth'
        self.ran = False
        self.environment = {
            'GLIBC_TUNABLES': ALLOCATOR,
            **os.environ,
            self.job.root_variable: str(self.folder / 'data'),
            'VOC_TRAIN': 'train',  # VOC as it is downloaded, without the masks of SBD
        }

    def run(self) -> dict[str, Any]:
        """Run all steps and return the summary.

        Raises:
            ProofError: The conversion changed a metric, or the metric is below the target.
            subprocess.CalledProcessError: A tool failed; it has printed the reason.
        """
        start, job = time.monotonic(), self.job
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_data()
        testing = ('--cfg-options', *job.test_options) if job.test_options else ()
        training = ('--cfg-options', *job.train_options, *job.test_options)
        self._tool('train', self.config, '--work-dir', self.work_dir, *training)
        checkpoint = Path(str(latest_checkpoint(self.work_dir)))
        trained = self._metrics(self.config, checkpoint, 'before', *testing)
        self._tool('switch_to_deploy', self.config, checkpoint, self.deployed, *testing)
        deploy_config = self.deployed.with_suffix('.py')
        converted = self._metrics(deploy_config, self.deployed, 'after')
        source = self.folder / ('data/val' if job.layout == 'imagenet' else 'unseen')
        images = self.folder / 'predictions'
        self._tool('predict', deploy_config, self.deployed, source, '--out-dir', images)
        report = json.loads(self.deployed.with_suffix('.json').read_text())
        summary = {
            'metrics_before': trained,
            'metrics_after': converted,
            'parameters': report['parameters'],
            'latency': report['latency'],
            'images': str(images / 'vis'),
            'overview': str(self._overview(images / 'vis')),
            'seconds': round(time.monotonic() - start, 1),
        }
        _print_summary(job, summary)
        if self.ran:
            print(f'{job.config}: {summary["seconds"]:.0f} s in total')
            atomic_text(self.folder / 'summary.json', json.dumps(summary, indent=2) + '\n')
        else:
            print(f'All steps were already done; remove {self.folder} to run them again.')
        _judge(job, trained, converted)
        return summary

    def _make_data(self) -> None:
        print(f'==> drawing images in {self.folder}', flush=True)
        make(self.job.layout, self.folder / 'data')
        classes = LAYOUTS['voc' if self.job.layout == 'voc' else 'images'].classes
        make('images', self.folder / 'unseen', classes=classes)

    def _metrics(
        self, config: Path, checkpoint: Path, name: str, *options: str
    ) -> dict[str, float]:
        out, work_dir = self.folder / f'metrics_{name}.json', self.folder / f'test_{name}'
        self._tool('test', config, checkpoint, '--work-dir', work_dir, '--out', out, *options)
        return json.loads(out.read_text())

    def _tool(self, tool: str, *arguments: str | Path) -> None:
        """Run one of the project's tools, unless the same command has succeeded in this folder."""
        words = [f'tools/{tool}.py', *(self._short(word) for word in arguments)]
        data = self._short(self.folder / 'data')
        line = f'{self.job.root_variable}={data} python {shlex.join(words)}'
        stamp = self.folder / f'.done_{hashlib.sha256(line.encode()).hexdigest()[:16]}'
        print(f'\n==> {line}', flush=True)
        if stamp.exists():
            print('    already done', flush=True)
            return
        self.ran = True
        command = [sys.executable, *words]
        subprocess.run(command, cwd=self.root, env=self.environment, check=True)
        atomic_text(stamp, line)

    def _short(self, word: str | Path) -> str:
        path = Path(word)
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(word)

    def _overview(self, folder: Path) -> Path:
        """Write a sheet of about eight images; neighbors in the folder may be of one class."""
        paths = sorted(path for path in folder.rglob('*') if path.is_file())
        images = [read_image(str(path)) for path in paths[:: max(1, len(paths) // 8)][:8]]
        return save_image(contact_sheet(images, self.job.config), self.folder / 'overview.jpg')


def _judge(job: Job, trained: dict[str, float], converted: dict[str, float]) -> None:
    for name, value in trained.items():
        after = converted.get(name, -1)
        if abs(value - after) > 1e-3 * job.best:
            raise ProofError(f'{name}: {value} before the conversion, {after} after')
    if trained[job.metric] < TARGET * job.best:
        raise ProofError(
            f'{job.metric}: got {trained[job.metric]}; expected at least {TARGET * job.best}'
        )


def _print_summary(job: Job, summary: dict[str, Any]) -> None:
    before, after = summary['metrics_before'], summary['metrics_after']
    print(f'\n{"":28}{"trained":>14}{"deployed":>14}')
    for name, value in before.items():
        missing = value == after[name] == -1
        values = 'no such object' if missing else f'{value:14.4f}{after[name]:14.4f}'
        print(f'{name:28}{values:>28}')
    parameters, latency = summary['parameters'], summary['latency']
    print(f'{"parameters":28}{parameters["before"]:14,}{parameters["after"]:14,}')
    print(f'{"latency (lower is faster)":28}{latency["ratio"]:13.2f}x{1:13.2f}x')
    expected = TARGET * job.best
    reached = 'reached' if before[job.metric] >= expected else 'NOT reached'
    metric = f'{job.metric}: {before[job.metric]:g}'
    print(f'\n{metric} on unseen images, expected at least {expected:g}: {reached}')
    print(f'drawn images: {summary["images"]}, overview: {summary["overview"]}')
