"""Train, test, convert and predict on drawn images, with the project's tools."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from mobileone_mm.apis.browse import contact_sheet
from mobileone_mm.data.loading import read_image
from mobileone_mm.errors import ProofError
from mobileone_mm.files import atomic_text
from mobileone_mm.inference.draw import save_image
from mobileone_mm.training.folders import latest_checkpoint
from mobileone_mm.training.launch import ALLOCATOR

from .generator import LAYOUTS, make

ROOT = Path(__file__).resolve().parents[1]
# Least share of the best metric that counts as learned.
TARGET = 0.7


class Job(NamedTuple):
    """One demo."""

    config: str  # to train
    layout: str  # of the drawn data, a key of LAYOUTS
    metric: str  # must reach TARGET
    best: float  # value of the metric
    train_options: tuple[str, ...]  # --cfg-options, which shorten the schedule for two cores
    test_options: tuple[str, ...] = ()  # --cfg-options of training, test and conversion


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
    """Run the steps of one task, a key of ``JOBS``, in a folder."""

    def __init__(self, task: str, folder: Path) -> None:
        self.job, self.folder = JOBS[task], folder.resolve()

    def run(self) -> dict[str, Any]:
        """Run all steps and return the summary.

        Raises:
            ProofError: The conversion changed a metric, or the metric is below the target.
            subprocess.CalledProcessError: A tool failed; it has printed the reason.
        """
        start, job, folder = time.monotonic(), self.job, self.folder
        config, deployed = ROOT / 'configs' / f'{job.config}.py', folder / 'deploy.pth'
        deploy_config, images = deployed.with_suffix('.py'), folder / 'predictions'
        testing = ('--cfg-options', *job.test_options) if job.test_options else ()
        training = ('--cfg-options', *job.train_options, *job.test_options)
        self._make_data()
        self._tool('train', config, '--work-dir', folder / 'train', *training)
        checkpoint = Path(str(latest_checkpoint(folder / 'train')))
        trained = self._metrics(config, checkpoint, 'before', *testing)
        self._tool('switch_to_deploy', config, checkpoint, deployed, *testing)
        converted = self._metrics(deploy_config, deployed, 'after')
        source = folder / ('data/val' if job.layout == 'imagenet' else 'unseen')
        self._tool('predict', deploy_config, deployed, source, '--out-dir', images)
        report = json.loads(deployed.with_suffix('.json').read_text())
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
        atomic_text(folder / 'summary.json', json.dumps(summary, indent=2) + '\n')
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
        words = [f'tools/{tool}.py', *map(_short, arguments)]
        variable, data = f'{self.job.layout.upper()}_ROOT', self.folder / 'data'
        print(f'\n==> {variable}={_short(data)} python {shlex.join(words)}', flush=True)
        # VOC as it is downloaded, without the masks of SBD
        given = {**os.environ, variable: str(data), 'VOC_TRAIN': 'train'}
        environment = {'GLIBC_TUNABLES': ALLOCATOR, **given}
        subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, check=True)

    def _overview(self, folder: Path) -> Path:
        """Write a sheet of about eight images; neighbors in the folder may be of one class."""
        paths = sorted(path for path in folder.rglob('*') if path.is_file())
        images = [read_image(str(path)) for path in paths[:: max(1, len(paths) // 8)][:8]]
        return save_image(contact_sheet(images, self.job.config), self.folder / 'overview.jpg')


def _short(word: str | Path) -> str:
    path = Path(word)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(word)


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
    metric = f'{job.metric}: {before[job.metric]:g}'
    print(f'\n{metric} on unseen images, expected at least {TARGET * job.best:g}')
    print(f'drawn images: {summary["images"]}, overview: {summary["overview"]}')
    print(f'{job.config}: {summary["seconds"]:.0f} s in total')
