"""A student, teachers with weights in files, and a batch: all tiny, five classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.registry import MODELS, DefaultScope

from helpers import RESNET, randomize_, save_teacher

CLASSES = RESNET['head']['num_classes']
ARCH = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.125] * 4, num_conv_branches=[2, 1, 1, 1],
            num_se_blocks=[0, 0, 0, 0])  # fmt: skip
PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
TIMM = 'test_byobnet'
DISTILL = """
model.update(
    type='mobileone_mm.DistillClassifier',
    teachers=[{teacher}],
    distill_loss=dict(temperature=2.0),
)
train_dataloader['dataset']['pipeline'][1:3] = [
    dict(type='RandomResizedCrop', scale=48, crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5),
]
optim_wrapper['optimizer'].update(lr=0.1)
"""


@pytest.fixture(autouse=True)
def scope(fresh_mmengine):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def resnet_teacher(tmp_path: Path) -> dict[str, Any]:
    """A teacher of mmpretrain with its weights in a checkpoint."""
    return save_teacher(tmp_path / 'resnet.pth', classes=CLASSES)


@pytest.fixture
def timm_teacher(tmp_path: Path) -> dict[str, Any]:
    """A teacher of timm's with its weights in a checkpoint as timm writes it."""
    path = tmp_path / 'timm.pth'
    torch.save(randomize_(timm.create_model(TIMM, num_classes=CLASSES), 2).state_dict(), path)
    return dict(timm=TIMM, checkpoint=str(path))


@pytest.fixture
def make_student() -> Callable[..., Any]:
    """Build the distilling classifier; its weights are random."""

    def make(*teachers: dict[str, Any], **settings: Any) -> Any:
        config = dict(
            type='mobileone_mm.DistillClassifier',
            data_preprocessor=dict(PREPROCESSOR, num_classes=CLASSES),
            backbone=dict(type='mobileone_mm.MobileOne', arch=ARCH, out_indices=(3,)),
            neck=RESNET['neck'],
            head=RESNET['head'],
            teachers=list(teachers),
        )
        torch.manual_seed(0)
        return MODELS.build({**config, **settings})

    return make


@pytest.fixture
def batch() -> dict[str, Any]:
    """Six images of noise and colour, as a loader gives them."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(5)
    shape = (6, 3, 32, 32)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = images // 2 + torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1) * 20
    samples = [DataSample().set_gt_label(index % CLASSES) for index in range(6)]
    return dict(inputs=images, data_samples=samples)


@pytest.fixture
def teacher(tmp_path: Path) -> dict[str, Any]:
    """A teacher of a thousand classes."""
    return save_teacher(tmp_path / 'teacher.pth')


@pytest.fixture
def config(tiny_config: Callable[..., Path], teacher: dict[str, Any]) -> Callable[..., Path]:
    """Write the config of a tiny student; keywords are keys of its teacher."""

    def write(extra: str = '', name: str = 'distill', **changes: Any) -> Path:
        text = DISTILL.format(teacher={**teacher, **changes})
        return tiny_config('cls', text + extra, name)

    return write
