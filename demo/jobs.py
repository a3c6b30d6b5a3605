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

from PIL import Image, ImageOps

from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.files import atomic_text, atomic_write
from mobileone_mm.training.folders import latest_checkpoint
from mobileone_mm.training.launch import ALLOCATOR

from .generator import LAYOUTS, make


@dataclass(frozen=True)
class Job:
    """One demo.

    Attributes:
        config: The config to train.
        root_variable: Environment variable of its data root.
        layout: Layout of the drawn data, a key of ``LAYOUTS``.
        metric: Metric that must reach ``target``.
        scale: Divisor of the metric that gives a value from 0 to 1.
        target: Least value that counts as learned.
        train_options: ``--cfg-options`` of training, which shorten the schedule for two cores.
        test_options: ``--cfg-options`` of training, testing and conversion.
    """

    config: str
    root_variable: str
    layout: str
    metric: str
    scale: float
    target: float
    train_options: tuple[str, ...]
    test_options: tuple[str, ...] = ()


_ADAMW = (
    'optim_wrapper.optimizer._delete_=True',
    'optim_wrapper.optimizer.type=AdamW',
    'optim_wrapper.optimizer.weight_decay=0.01',
)
# No ImageNet weights: the demo needs no network.
_SCRATCH = (
    'model.backbone.init_cfg._delete_=True',
    'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit',
)


def _schedule(epochs: int, warmup: int) -> tuple[str, ...]:
    return (
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
        root_variable='COCO_ROOT',
        layout='coco',
        metric='coco/bbox_mAP_50',
        scale=1.0,
        target=0.7,
        train_options=(
            *_SCRATCH,
            *_ADAMW,
            'optim_wrapper.optimizer.lr=1e-3',
            'train_dataloader.batch_size=4',
            'train_dataloader.num_workers=1',
            'train_dataloader.dataset.times=1',
            # In three epochs, Expand and MinIoURandomCrop only make the objects small.
            'train_dataloader.dataset.dataset.pipeline.2.prob=0.0',
            'train_dataloader.dataset.dataset.pipeline.3.min_crop_size=1.0',
            *_schedule(epochs=3, warmup=25),
        ),
    ),
    'cls': Job(
        config='mobileone_s1_in1k',
        root_variable='IMAGENET_ROOT',
        layout='imagenet',
        metric='accuracy/top1',
        scale=100.0,
        target=0.7,
        train_options=(
            *_ADAMW,
            'optim_wrapper.optimizer.lr=1e-3',
            'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit',
            'train_dataloader.batch_size=16',
            'train_dataloader.num_workers=1',
            # The average must follow the weights within a hundred iterations.
            'custom_hooks.0.momentum=0.1',
            *_schedule(epochs=6, warmup=1),
            'param_scheduler.1.begin=1',
            'param_scheduler.2.eta_min_ratio=1e-3',
        ),
    ),
    'seg': Job(
        config='deeplabv3_mobileone_s0_voc',
        root_variable='VOC_ROOT',
        layout='voc',
        metric='mIoU',
        scale=100.0,
        target=0.7,
        train_options=(
            *_SCRATCH,
            *_ADAMW,
            'optim_wrapper.optimizer.lr=2e-3',
            # From scratch, all layers need the same learning rate, and no average follows so fast.
            'optim_wrapper.paramwise_cfg.custom_keys._delete_=True',
            'custom_hooks=[]',
            'train_dataloader.batch_size=4',
            'train_dataloader.num_workers=1',
            'train_dataloader.dataset.pipeline.2.scale=(256,256)',
            'train_dataloader.dataset.pipeline.2.ratio_range=(0.9,1.3)',
            'train_dataloader.dataset.pipeline.3.crop_size=(224,224)',
            'model.data_preprocessor.size=(224,224)',
            *_schedule(epochs=5, warmup=20),
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

    Raises:
        InputError: There is no such task, or ``root`` has no configs and tools.

    Attributes:
        ran: Whether a step was run.
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
        start = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_data()
        testing = _options(self.job.test_options)
        training = _options((*self.job.train_options, *self.job.test_options))
        self._tool('train', self.config, '--work-dir', self.work_dir, *training)
        checkpoint = Path(str(latest_checkpoint(self.work_dir)))
        trained = self._metrics(self.config, checkpoint, 'before', *testing)
        self._tool('switch_to_deploy', self.config, checkpoint, self.deployed, *testing)
        deploy_config = self.deployed.with_suffix('.py')
        converted = self._metrics(deploy_config, self.deployed, 'after')
        source = self.folder / ('data/val' if self.job.layout == 'imagenet' else 'unseen')
        images = self.folder / 'predictions'
        self._tool('predict', deploy_config, self.deployed, source, '--out-dir', images)
        return self._judge(trained, converted, images, time.monotonic() - start)

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

    def _judge(
        self, trained: dict[str, float], converted: dict[str, float], images: Path, seconds: float
    ) -> dict[str, Any]:
        report = json.loads(self.deployed.with_suffix('.json').read_text())
        key, scale = self.job.metric, self.job.scale
        summary = {
            'metrics_before': trained,
            'metrics_after': converted,
            'parameters': report['parameters'],
            'latency': report['latency'],
            'images': str(images / 'vis'),
            'overview': str(contact_sheet(images / 'vis', self.folder / 'overview.jpg')),
            'seconds': round(seconds, 1),
        }
        _print_summary(self.job, summary)
        if self.ran:
            print(f'{self.job.config}: {seconds:.0f} s in total')
            atomic_text(self.folder / 'summary.json', json.dumps(summary, indent=2) + '\n')
        else:
            print(f'All steps were already done; remove {self.folder} to run them again.')
        for name, value in trained.items():
            after = converted.get(name, -1)
            if abs(value - after) > 1e-3 * scale:
                raise ProofError(f'{name}: {value} before the conversion, {after} after')
        if trained[key] / scale < self.job.target:
            raise ProofError(
                f'{key}: got {trained[key]}; expected at least {self.job.target * scale}'
            )
        return summary


def contact_sheet(
    folder: Path, out: Path, columns: int = 4, rows: int = 2, side: int = 240
) -> Path:
    """Write a JPEG that shows evenly spaced images of a folder, ``side`` pixels each."""
    gap = 4
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg', '.png'))
    size = (columns * (side + gap) - gap, rows * (side + gap) - gap)
    sheet = Image.new('RGB', size, 'white')
    # Neighbors in the folder may be of one class.
    chosen = paths[:: max(1, len(paths) // (columns * rows))][: columns * rows]
    for place, path in enumerate(chosen):
        with Image.open(path) as opened:
            image = ImageOps.contain(opened.convert('RGB'), (side, side))
        sheet.paste(image, (place % columns * (side + gap), place // columns * (side + gap)))
    atomic_write(out, lambda file: sheet.save(file, 'JPEG', quality=88))
    return out


def _options(settings: tuple[str, ...]) -> tuple[str, ...]:
    return ('--cfg-options', *settings) if settings else ()


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
    expected = job.target * job.scale
    reached = 'reached' if before[job.metric] >= expected else 'NOT reached'
    metric = f'{job.metric}: {before[job.metric]:g}'
    print(f'\n{metric} on unseen images, expected at least {expected:g}: {reached}')
    print(f'drawn images: {summary["images"]}, overview: {summary["overview"]}')
