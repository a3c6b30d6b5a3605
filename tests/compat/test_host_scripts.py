"""The hosts' own train and test scripts run our configs, with or without compiled operators."""

import importlib.util
import json
from pathlib import Path

import mobileone_mm  # noqa: F401  isort: skip

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
QUICK = [
    'default_hooks.logger.interval=1',
    *(
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val', 'test')
        for setting in ('batch_size=2', 'num_workers=0', 'persistent_workers=False')
    ),
]


def tool(host: str, name: str) -> Path:
    """Script that the host installs for mim."""
    pytest.importorskip(host)
    spec = importlib.util.find_spec(host)
    script = Path(spec.origin).parent / '.mim' / 'tools' / f'{name}.py'
    if not script.is_file():
        pytest.skip(f'{host} brings no tools/{name}.py')
    return script


def run(
    python, host: str, config: str, folder: Path, env: dict, options: list[str], test=True
) -> str:
    """Train an epoch and validate, then test the checkpoint; output of the last program."""
    common = [ROOT / 'configs' / config, '--work-dir', folder]
    options = ['--cfg-options', *QUICK, *options]
    command = ('-m', 'mobileone_mm.compat')
    done = python(*command, tool(host, 'train'), *common, *options, env=env)
    assert 'Epoch(val) [1]' in done.stdout + done.stderr
    if test:
        common.insert(1, folder / 'epoch_1.pth')
        done = python(*command, tool(host, 'test'), *common, *options, env=env)
    return done.stdout + done.stderr


SCRATCH = [
    'model.backbone.init_cfg._delete_=True',
    'model.backbone.init_cfg.type=mobileone_mm.NearIdentityInit',
]


@pytest.mark.parametrize('test', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mmdet(tiny_coco: Path, tmp_path: Path, python, test: bool):
    options = [
        *SCRATCH,
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.times=1',
        'model.test_cfg.score_thr=0.0',  # an untrained net is sure of nothing
        f'{"test" if test else "val"}_evaluator.outfile_prefix={tmp_path / "found"}',
    ]
    env = {'COCO_ROOT': str(tiny_coco)}
    output = run(python, 'mmdet', 'ssdlite_mobileone_s0_coco.py', tmp_path, env, options, test)
    assert 'coco/bbox_mAP' in output
    found = json.loads((tmp_path / 'found.bbox.json').read_text())
    assert len(found) > 4
    groups: dict[tuple[int, int], list[list[float]]] = {}
    for one in found:
        groups.setdefault((one['image_id'], one['category_id']), []).append(one['bbox'])
    for boxes in groups.values():
        assert most_overlap(torch.tensor(boxes, dtype=torch.float64)) <= 0.46  # written rounded


def most_overlap(boxes: torch.Tensor) -> float:
    """Largest IoU of two different boxes given as corner and size."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    shared = torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)
    shared = shared.clamp(0).prod(-1)
    area = (high - low).prod(-1)
    iou = shared / (area[:, None] + area - shared)
    return iou.fill_diagonal_(0).nan_to_num(0).max().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('host', 'config', 'data', 'options', 'metric'),
    [
        (
            'mmpretrain',
            'mobileone_s0_in1k',
            ('IMAGENET_ROOT', 'tiny_imagenet'),
            [],
            'accuracy/top1',
        ),
        ('mmseg', 'deeplabv3_mobileone_s0_voc', ('VOC_ROOT', 'tiny_voc'), SCRATCH, 'mIoU'),
    ],
)
def test_other_hosts(host, config, data, options, metric, tmp_path: Path, python, request):
    env = {data[0]: str(request.getfixturevalue(data[1])), 'VOC_TRAIN': 'train'}
    options = [*options, 'train_cfg.max_epochs=1']
    assert metric in run(python, host, f'{config}.py', tmp_path, env, options)
