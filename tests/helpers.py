"""What tests of many folders use."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobileone_mm import MobileOne
from mobileone_mm.cli.arguments import tool_parser

ROOT = Path(__file__).resolve().parents[1]
SMALL = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.25] * 4, num_conv_branches=[2, 1, 1, 1])
RESNET = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)
#: options of a detector or segmentor that start from no public weights
SCRATCH = (
    'model.backbone.init_cfg._delete_=True',
    'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit',
)
#: options of one short epoch without worker processes
QUICK = (
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
    *(f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')),
    *(f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val', 'test')),
)


def write_files(folder: Path, texts: dict[str, str]) -> Path:
    """Write files by their paths in a folder, and return the folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def python(
    *args: object, path=(), env=None, fails=False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python with the folders of ``path`` before this project; it must succeed, or fail."""
    entries = os.pathsep.join(map(str, (*path, ROOT)))
    result = subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, 'PYTHONPATH': entries, 'OMP_NUM_THREADS': '1', **(env or {})},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        **options,
    )
    assert (result.returncode != 0) == fails, result.stdout + result.stderr
    return result


def cfg_options(*words: str) -> dict[str, Any]:
    """Parse the words of ``--cfg-options`` as the tools do."""
    flags = ('--cfg-options', *words) if words else ()
    return tool_parser('', checkpoint=False).parse_args(['config', *flags]).cfg_options or {}


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    """Return the rows that a run has logged."""
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(row) for row in file.read_text().splitlines()]


@torch.no_grad()
def randomize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Set random weights *and* random BN statistics in place, and return the module.

    With fresh statistics (mean 0, variance 1) BN is almost the identity, so a test would not see a
    wrong fusion. Kernels have a standard deviation of 1 / sqrt(fan in), so that activations stay in
    range.
    """
    generator = torch.Generator().manual_seed(seed)
    of_norms = dict(
        weight=(0.1, 0.6), bias=(-0.3, 0.3), running_mean=(-0.5, 0.5), running_var=(0.5, 2.0)
    )
    for child in module.modules():
        is_norm = isinstance(child, _BatchNorm)
        for tensor in child.parameters(recurse=False):
            if tensor.ndim >= 2:
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(noise / max(1, tensor[0].numel()) ** 0.5)
        for name, (low, high) in (of_norms if is_norm else dict(bias=(-0.2, 0.2))).items():
            value = getattr(child, name, None)
            if isinstance(value, Tensor):
                noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                value.copy_(noise * (high - low) + low)
    return module


def save_teacher(path: Path | str, seed: int = 1, classes: int = 1000) -> dict[str, Any]:
    """Return a teacher of mmpretrain with random weights in a checkpoint."""
    model = {**RESNET, 'head': {**RESNET['head'], 'num_classes': classes}}
    built = MODELS.build({**model, '_scope_': 'mmpretrain'})
    torch.save(randomize_(built, seed).state_dict(), path)
    return dict(model=model, checkpoint=str(path))


class Classifier(nn.Module):
    """A MobileOne and a linear layer, with the hosts' keys."""

    def __init__(self, arch: Any = SMALL, classes: int = 5, **backbone: Any) -> None:
        super().__init__()
        self.backbone = MobileOne(arch, **backbone)
        self.head = nn.Module()
        self.head.fc = nn.Linear(self.backbone.out_channels[-1], classes)


def same(first: nn.Module | dict[str, Tensor], second: nn.Module | dict[str, Tensor]) -> bool:
    """Whether two models or state dicts have the same keys and equal tensors."""
    a, b = (x.state_dict() if isinstance(x, nn.Module) else x for x in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Pickled:
    """Pickles as a call, with the state that the result gets; what is called may be another one."""

    def __init__(self, function, *args, state=None):
        self.reduced = function, args, state

    def __call__(self):
        raise AssertionError('only pickled')

    def __reduce__(self):
        return self.reduced
