"""What all tests share: the stand-ins in place, few threads, tiny datasets in the hosts' layouts."""

import os

# The tests do the same on every machine: torch sees a GPU only in `make test-gpu`.
if os.environ.get('MOBILEONE_MM_TEST_DEVICE') != 'cuda':
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import mobileone_mm  # noqa: F401  isort: skip  (first: it puts the stand-ins in place)

import runpy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers import ROOT, python, randomize_

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))


@pytest.fixture(scope='session', autouse=True)
def quick_runs() -> Iterator[None]:
    """mmengine without its two slow parts, which took half the time of a tiny run; short latencies.

    It formats the whole config with yapf five times in each run, and collects garbage for each
    dataset. Runs in processes of their own do both.
    """
    import mmengine.config.config
    import mmengine.dataset.base_dataset
    import yapf.yapflib.yapf_api

    with pytest.MonkeyPatch.context() as patch:
        for module in (yapf.yapflib.yapf_api, mmengine.config.config):  # OneDL's imports it late
            patch.setattr(module, 'FormatCode', lambda text, **_: (text, True), raising=False)
        patch.setattr(mmengine.dataset.base_dataset, 'gc', SimpleNamespace(collect=lambda: 0))
        patch.setattr('mobileone_mm.deploy.report.LATENCY_SECONDS', 0.0)
        yield


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder with small pieces of public datasets and Apple's S0 weights."""
    folder = Path(os.environ.get('MOBILEONE_MM_DATA') or ROOT.parent / 'shared' / 'data')
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder}; set MOBILEONE_MM_DATA')
    return folder


def _tiny(layout: str, size: int, num_train: int, num_val: int) -> Callable:
    """A fixture with a tiny drawn dataset of a layout, ``size`` pixels square."""

    @pytest.fixture(scope='session')
    def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
        from demo.generator import make

        root = tmp_path_factory.mktemp(layout)
        return make(layout, root, size, num_train=num_train, num_val=num_val)

    return dataset


tiny_coco = _tiny('coco', 96, num_train=6, num_val=4)
tiny_imagenet = _tiny('imagenet', 64, num_train=8, num_val=8)
tiny_voc = _tiny('voc', 96, num_train=6, num_val=4)
tiny_ade = _tiny('ade', 96, num_train=6, num_val=4)


# Recipes start from weights that would be downloaded.
SCRATCH = "dict(_delete_=True, type='mobileone_mm.NearIdentityInit')"
# A net of 100 000 parameters that still has every kind of unit.
TINY_ARCH = (
    'dict(_delete_=True, num_blocks=(1, 2, 1, 1), width_factor=(0.25, 0.125, 0.0625, 0.0625))'
)
TINY_LAST = """
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1))
"""
TINY_CONFIGS = {
    'cls': """
_base_ = ['{configs}/mobileone_s0_in1k.py']
model = dict(backbone=dict(arch={arch}), head=dict(in_channels=32))
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=48),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=48),
    dict(type='PackInputs'),
]))
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = dict(_delete_=True, type='LinearLR', start_factor=0.1, end=4, by_epoch=False)
train_cfg = dict(max_epochs=1)
""",
    'det': """
_base_ = ['{configs}/ssdlite_mobileone_s0_coco.py']
levels = (16, 32, 32, 32, 32, 32)
model = dict(
    backbone=dict(arch={arch}, init_cfg={init}),
    neck=dict(in_channels=(16, 32), out_channels=levels),
    bbox_head=dict(in_channels=levels),
    # An untrained net is sure of nothing, and mmdet has no metric for no box at all.
    test_cfg=dict(score_thr=0.001),
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(times=1))
val_dataloader = dict(batch_size=2, num_workers=0)
train_cfg = dict(max_epochs=1)
""",
    'seg': """
_base_ = ['{configs}/deeplabv3_mobileone_s0_voc.py']
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch={arch}, init_cfg={init}),
    decode_head=dict(in_channels=32, channels=16),
    auxiliary_head=dict(in_channels=16, channels=16),
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(
    _delete_=True,
    type='PascalVOCDataset',
    data_root='{{{{$VOC_ROOT:data/VOCdevkit/VOC2012}}}}',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomResize', scale=(96, 96), ratio_range=(0.8, 1.5), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(64, 64)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackSegInputs'),
    ],
))
val_dataloader = dict(num_workers=0)
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1)
custom_hooks = []
""",
}


@pytest.fixture
def roots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The environment variables of the data roots, set to the tiny datasets."""
    layouts = ('coco', 'imagenet', 'voc', 'ade')
    found = {f'{name.upper()}_ROOT': request.getfixturevalue(f'tiny_{name}') for name in layouts}
    for name, folder in found.items():
        monkeypatch.setenv(name, str(folder))
    return found


@pytest.fixture
def own_scope(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A default scope that ends with the test, and the usual training set of VOC."""
    from mmengine.registry import DefaultScope

    monkeypatch.delenv('VOC_TRAIN', raising=False)
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


@pytest.fixture
def tiny_config(tmp_path: Path, roots: dict[str, Path]) -> Callable[..., Path]:
    """Write a config that trains a tiny net on tiny data: by task, with extra lines."""

    def write(task: str, extra: str = '', name: str | None = None) -> Path:
        text = TINY_CONFIGS[task].format(configs=ROOT / 'configs', arch=TINY_ARCH, init=SCRATCH)
        path = tmp_path / f'{name or task}.py'
        path.write_text(text + TINY_LAST + extra)
        return path

    return write


@pytest.fixture
def trained(tiny_config: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Make a config and a checkpoint with random weights, as a run leaves them: by task."""
    from mobileone_mm.config.read import load_config
    from mobileone_mm.deploy.config import build_model

    def make(task: str, extra: str = '') -> tuple[Path, Path]:
        config, checkpoint = tiny_config(task, extra), tmp_path / f'{task}-trained.pth'
        model = randomize_(build_model(load_config(config)), seed=7)
        meta = {'dataset_meta': {'classes': ('a', 'b', 'c'), 'palette': [(1, 2, 3)] * 3}}
        torch.save({'state_dict': model.state_dict(), 'meta': meta}, checkpoint)
        return config, checkpoint

    return make


@pytest.fixture
def tool(fresh_mmengine: None) -> Callable[..., int]:
    """Run a tool of ``tools/`` in this process and return its exit code."""
    from mobileone_mm.cli.run import call_tool

    def run(name: str, *argv: object) -> int:
        (path,) = (ROOT / 'tools').rglob(f'{name}.py')
        main = runpy.run_path(str(path))['main']
        try:
            return call_tool(main, [str(arg) for arg in argv])
        except SystemExit as error:
            return int(error.code or 0)
        finally:
            _forget_runs()

    return run


@pytest.fixture
def fresh_mmengine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """mmengine's process-wide objects (loggers, visualizers, default scope) put away.

    Before, too: a visualizer that another test has left would write into that test's folder.
    """
    monkeypatch.setenv('LOCAL_RANK', '0')
    _forget_runs(scopes=False)
    yield
    _forget_runs()


@pytest.fixture
def safe_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine reads as in the tools, where each run asks for it again; undone after each test."""
    from mmengine.runner import checkpoint

    from mobileone_mm.weights.mmengine_loader import use_safe_loader

    for name in ('load_url', 'load_from_local', '_safe_torch_load'):
        monkeypatch.setattr(checkpoint, name, getattr(checkpoint, name, None), raising=False)
    schemes = dict(checkpoint.CheckpointLoader._schemes)
    monkeypatch.setattr(checkpoint.CheckpointLoader, '_schemes', schemes)
    use_safe_loader()
    use_safe_loader()


def _forget_runs(scopes: bool = True) -> None:
    import logging

    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
    kinds = [MMLogger, MessageHub, Visualizer, *([DefaultScope] if scopes else [])]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        kind._instance_dict.clear()


@pytest.fixture
def torchrun():
    """Run a tool in two processes on the CPU, which must succeed, with modules in ``path``."""

    def run(tool, *argv, path=()):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        launch = ('-m', 'torch.distributed.run', '--nproc_per_node=2')
        place = ('--master_addr=127.0.0.1', f'--master_port={port}')
        script = ROOT / 'tools' / f'{tool}.py'
        return python(*launch, *place, script, *argv, '--launcher', 'pytorch', path=path)

    return run
