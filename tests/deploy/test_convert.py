"""Whole models to deploy pairs: proof, files, metrics and every way in which it must refuse."""

from __future__ import annotations

import copy
import errno
import importlib.util
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner import checkpoint as host
from PIL import Image

from mobileone_mm.cli.run import call_tool
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy import config as configs
from mobileone_mm.deploy import convert
from mobileone_mm.deploy.config import build_model
from mobileone_mm.deploy.convert import convert_to_deploy
from mobileone_mm.deploy.forward import RawForward
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.reparam import algebra, surgery
from mobileone_mm.reparam.compare import randomize_
from mobileone_mm.weights.mmengine_loader import use_safe_loader

ROOT = Path(__file__).resolve().parents[2]
TINY = dict(
    num_blocks=[1, 2, 1, 1],
    width_factor=[0.125] * 4,
    num_conv_branches=[2, 1, 1, 1],
    num_se_blocks=[0, 0, 1, 0],
)
LEVELS = (32, 64, 32, 32, 32, 32)
LOADERS = {
    f'{name}_dataloader.{key}': value
    for name in ('test', 'val')
    for key, value in (('num_workers', 0), ('persistent_workers', False))
}
TASKS = {
    'cls': (
        'mobileone_s0_in1k.py',
        {
            'model.head.in_channels': 64,
            'test_dataloader.dataset.pipeline.1.scale': 40,
            'test_dataloader.dataset.pipeline.2.crop_size': 32,
        },
    ),
    'det': (
        'ssdlite_mobileone_s0_coco.py',
        {
            'model.neck.in_channels': (32, 64),
            'model.neck.out_channels': LEVELS,
            'model.bbox_head.in_channels': LEVELS,
            'model.bbox_head.num_classes': 6,
            'test_dataloader.dataset.pipeline.1.scale': (96, 96),
        },
    ),
    'seg': (
        'deeplabv3_mobileone_s0_voc.py',
        {
            'model.decode_head.in_channels': 64,
            'model.decode_head.channels': 16,
            'model.auxiliary_head.in_channels': 32,
            'model.auxiliary_head.channels': 16,
            'test_dataloader.dataset.pipeline.1.scale': (64, 64),
        },
    ),
}


def options_of(task: str) -> dict:
    return {**TASKS[task][1], **LOADERS, 'model.backbone.arch': dict(TINY, _delete_=True)}


def config_of(task: str) -> Path:
    return ROOT / 'configs' / TASKS[task][0]


@pytest.fixture(autouse=True)
def safe_loader(monkeypatch) -> None:
    """mmengine reads as in the tools; undone after each test."""
    for name in ('load_url', 'load_from_local', 'load_state_dict', '_safe_torch_load'):
        monkeypatch.setattr(host, name, getattr(host, name, None), raising=False)
    schemes = dict(host.CheckpointLoader._schemes)
    monkeypatch.setattr(host.CheckpointLoader, '_schemes', schemes)
    use_safe_loader()


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints as a Runner with EMA leaves them, of random weights and statistics."""
    paths = {}
    for task in TASKS:
        model = build_model(load_config(config_of(task), options_of(task)))
        averaged = copy.deepcopy(randomize_(model, seed=3).state_dict())
        raw = randomize_(model, seed=4).state_dict()
        paths[task] = tmp_path_factory.mktemp('checkpoints') / f'{task}.pth'
        torch.save(
            {
                'state_dict': averaged,
                'ema_state_dict': {
                    'steps': torch.tensor(3),
                    **{f'module.{key}': value for key, value in raw.items()},
                },
                'optimizer': {'state': {}},
                'meta': {
                    'epoch': 3,
                    'dataset_meta': {
                        'classes': ('a', 'b'),
                        'palette': torch.tensor([[1, 2, 3]]).numpy(),
                    },
                },
            },
            paths[task],
        )
    return paths


def convert_task(task: str, checkpoint: Path, out: Path, **kwargs) -> dict:
    options = {**options_of(task), **kwargs.pop('cfg_options', {})}
    return convert_to_deploy(config_of(task), checkpoint, out, cfg_options=options, **kwargs)


@pytest.fixture(scope='module')
def pairs(checkpoints, tmp_path_factory) -> dict[str, Path]:
    """The converted checkpoints of the three tasks."""
    folder = tmp_path_factory.mktemp('pairs')
    for task, checkpoint in checkpoints.items():
        convert_task(task, checkpoint, folder / f'{task}.pth')
    return {task: folder / f'{task}.pth' for task in checkpoints}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('task', TASKS)
def test_pair_and_report(task, pairs, checkpoints, monkeypatch):
    out = pairs[task]
    assert {f'{task}{suffix}' for suffix in ('.pth', '.py', '.json')} <= set(names(out.parent))
    report = json.loads(out.with_suffix('.json').read_text())
    assert report['proof']['float64']['greatest_relative'] < 1e-9
    assert report['proof']['float32']['greatest_relative'] < 1e-4
    assert len({d['input'] for d in report['proof']['differences']}) == 2
    assert report['parameters']['after'] < report['parameters']['before']
    assert report['checkpoint_bytes'] == {
        'before': checkpoints[task].stat().st_size,
        'after': out.stat().st_size,
    }
    assert report['dropped'] == ['ema_state_dict', 'optimizer']
    assert 'averaged weights' in report['notes'][0]
    assert report['fused_units'] == 1 + 2 * 5
    assert report['latency']['ratio'] > 0
    assert report['macs']['after'] < report['macs']['before']
    assert report['ema'] is True
    assert report['folded']['left'] == []

    # A reader of plain weights is enough: nothing but tensors, texts and lists.
    monkeypatch.setattr('torch._weights_only_unpickler._marked_safe_globals_set', set())
    content = torch.load(out, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert 'mean' in content['meta']['data_preprocessor']
    meta = content['meta']['dataset_meta']
    assert meta == {'classes': ('a', 'b'), 'palette': [[1, 2, 3]]}
    assert content['meta']['source_sha256'] == report['source']['sha256']
    text = out.with_suffix('.py').read_text()
    assert content['meta']['cfg'] == text
    assert str(ROOT) not in text
    assert 'ROOT:data/' in text


@pytest.mark.parametrize('task', TASKS)
def test_hosts_load_the_pair_strictly_and_predict_the_same(task, pairs, checkpoints):
    cfg = Config.fromfile(pairs[task].with_suffix('.py'))
    deployed = build_model(cfg).eval()
    host.load_checkpoint(deployed, str(pairs[task]), map_location='cpu', strict=True)
    original = build_model(load_config(config_of(task), options_of(task))).eval()
    host.load_checkpoint(original, str(checkpoints[task]), map_location='cpu', strict=True)
    assert not any('branch_conv_list' in key for key in deployed.state_dict())
    inputs = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = RawForward(original)
        pairs_ = zip(found(original, inputs), found(deployed, inputs), strict=True)
        for expected, got in pairs_:
            assert torch.allclose(expected, got, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all(p.requires_grad for p in deployed.backbone.parameters())


@pytest.fixture
def data(tiny_imagenet, tiny_coco, tiny_voc, monkeypatch) -> None:
    monkeypatch.setenv('IMAGENET_ROOT', str(tiny_imagenet))
    monkeypatch.setenv('COCO_ROOT', str(tiny_coco))
    monkeypatch.setenv('VOC_ROOT', str(tiny_voc))


def run_test(cfg: Config, checkpoint: Path, folder: Path) -> tuple[dict, list[torch.Tensor]]:
    """Return metrics and scores (labels, for masks) of the host's own test loop."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(folder)
    cfg.load_from = str(checkpoint)
    cfg.experiment_name = folder.name
    dump = dict(type='DumpResults', out_file_path=str(folder / 'predictions.pkl'))
    cfg.test_evaluator = [cfg.test_evaluator, dump]
    metrics = Runner.from_cfg(cfg).test()
    predictions = pickle.loads((folder / 'predictions.pkl').read_bytes())
    values = []
    for prediction in predictions:
        if 'pred_instances' in prediction:
            values.append(prediction['pred_instances']['scores'])
        elif 'pred_sem_seg' in prediction:
            values.append(prediction['pred_sem_seg']['data'])
        else:
            values.append(prediction['pred_score'])
    return metrics, values


@pytest.mark.parametrize('task', TASKS)
def test_the_metric_is_the_same(task, pairs, checkpoints, data, tmp_path):
    original = load_config(config_of(task), options_of(task))
    deployed = Config.fromfile(pairs[task].with_suffix('.py'))
    if task == 'det':
        categories = json.loads(Path(original.test_evaluator.ann_file).read_text())['categories']
        classes = tuple(category['name'] for category in categories)
        for cfg in (original, deployed):
            cfg.merge_from_dict({'test_dataloader.dataset.metainfo': dict(classes=classes)})
    first, expected = run_test(original, checkpoints[task], tmp_path / 'original')
    second, found = run_test(deployed, pairs[task], tmp_path / 'deployed')
    assert first
    assert second == pytest.approx(first, abs=1e-6)
    # A random net's metric is often 0, and 0 == 0 proves little: the predictions are equal, too.
    assert len(found) == len(expected) >= 4
    for one, other in zip(expected, found, strict=True):
        assert one.numel()
        if one.is_floating_point():
            # The last digit decides at a threshold of NMS: one box in a hundred may come or go.
            near = (one[:, None] - other[None]).abs().min(1).values <= 1e-5
            assert float(near.float().mean()) > 0.99
            assert abs(one.numel() - other.numel()) <= 0.01 * one.numel()
        else:
            assert float((one == other).float().mean()) > 0.999


def test_images_take_part(checkpoints, tmp_path):
    Image.effect_noise((50, 40), 60).save(tmp_path / 'noise.png')
    report = convert_task(
        'det', checkpoints['det'], tmp_path / 'out.pth', images=[tmp_path / 'noise.png']
    )
    assert 'noise.png' in {d['input'] for d in report['proof']['differences']}


def test_apples_real_weights_unfused_by_name_only(real_data, tmp_path):
    fused = real_data / 'weights' / 'mobileone_s0_apple_fused.pth'
    with pytest.raises(InputError, match='in deploy form already; there is nothing to fuse'):
        convert_to_deploy(config_of('cls'), fused, tmp_path / 'out.pth')
    assert names(tmp_path) == []


def fused_wrongly(*args):
    kernel, bias = algebra.fuse_branches(*args)
    return kernel * 1.02, bias


def spoiled_afterwards(*args):
    """The algebra is right, but the weights to write are not the ones that it gives."""
    folding, exact = DEPLOY_FORM(*args)
    with torch.no_grad():
        folding.model.backbone.stage3[0].branch_reparam.weight.mul_(1.02)
    return folding, exact


DEPLOY_FORM = convert._deploy_form


@pytest.mark.parametrize(
    ('module', 'name', 'wrong', 'dtype'),
    [
        (surgery, 'fuse_branches', fused_wrongly, 'float64'),
        (convert, '_deploy_form', spoiled_afterwards, 'float32'),
    ],
)
def test_a_failed_proof_writes_nothing(
    checkpoints, tmp_path, monkeypatch, module, name, wrong, dtype
):
    (tmp_path / 'out.pth').write_text('earlier')
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(ProofError, match=rf'differs .* in {dtype} .* nothing was written'):
        convert_task('cls', checkpoints['cls'], tmp_path / 'out.pth')
    assert names(tmp_path) == ['out.pth']
    assert (tmp_path / 'out.pth').read_text() == 'earlier'


def test_a_wrong_config_is_noticed(checkpoints, tmp_path, monkeypatch):
    """Dilation adds no keys: only the comparison can see that it was lost."""
    lossy = configs.deploy_config_text

    def without_dilation(*args):
        return lossy(*args).replace('output_stride=16', 'output_stride=32')

    monkeypatch.setattr(configs, 'deploy_config_text', without_dilation)
    with pytest.raises(ProofError, match='outputs of different shapes|differs'):
        convert_task('seg', checkpoints['seg'], tmp_path / 'out.pth')
    assert names(tmp_path) == []


def test_a_full_disk_leaves_earlier_files(checkpoints, tmp_path, monkeypatch):
    for suffix in ('.pth', '.json'):
        (tmp_path / f'out{suffix}').write_text('earlier')
    written = []
    fsync = os.fsync

    def third_fails(handle):
        written.append(handle)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        fsync(handle)

    monkeypatch.setattr(os, 'fsync', third_fails)
    with pytest.raises(InputError, match='the disk is full'):
        convert_task('cls', checkpoints['cls'], tmp_path / 'out.pth')
    assert names(tmp_path) == ['out.json', 'out.pth']
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {'earlier'}


def edited(path: Path, target: Path, change) -> Path:
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, target)
    return target


def test_what_cannot_be_converted(checkpoints, tmp_path):
    good, out = checkpoints['cls'], tmp_path / 'new' / 'out.pth'

    def nan(content):
        content['state_dict']['backbone.stage1.0.branch_scale.norm.running_var'][0] = float('nan')

    def negative(content):
        content['state_dict']['backbone.stage1.0.branch_scale.norm.running_var'][0] = -1

    cases = [
        (good, {'model.backbone.arch': 's0', 'model.head.in_channels': 1024}, 'of another size'),
        (good, {'model.backbone.deploy': True}, r'in deploy form \(deploy=True\) already'),
        (
            good,
            {'model.backbone.type': 'MobileOne', 'model.backbone.arch': 's0'},
            'no MobileOne of',
        ),
        (good, {'model.backbone.arch': 's9'}, "cannot be built .*got 's9'"),
        (good, {'model.head.num_classes': 7}, 'another number of classes'),
        (checkpoints['det'], {}, 'another task'),
        (edited(good, tmp_path / 'nan.pth', nan), {}, 'NaN or Inf'),
        (edited(good, tmp_path / 'negative.pth', negative), {}, 'negative variance'),
        (tmp_path / 'no.pth', {}, 'no such file'),
    ]
    for checkpoint, options, match in cases:
        with pytest.raises(InputError, match=match) as caught:
            convert_task('cls', checkpoint, out, cfg_options=options)
        assert '\n' not in str(caught.value)
        assert not out.parent.exists()


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(device='cuda:7'), 'device: '),
        (dict(device='toaster'), 'device: '),
        (dict(tolerance=0.0), 'tolerance: '),
        (dict(tolerance=float('nan')), 'tolerance: '),
        (dict(images=['no.png']), 'images: '),
    ],
)
def test_bad_arguments(checkpoints, tmp_path, kwargs, match):
    with pytest.raises(InputError, match=match):
        convert_task('cls', checkpoints['cls'], tmp_path / 'out.pth', **kwargs)
    assert names(tmp_path) == []


def test_inputs_are_never_overwritten(checkpoints, tmp_path):
    checkpoint, config = tmp_path / 'net.pth', tmp_path / 'model.py'
    checkpoint.write_bytes(checkpoints['cls'].read_bytes())
    config.write_text(
        config_of('cls').read_text().replace('./_base_', str(ROOT / 'configs/_base_'))
    )
    (tmp_path / 'link.pth').symlink_to(checkpoint)
    os.link(checkpoint, tmp_path / 'same.pth')
    (tmp_path / 'folder.pth').mkdir()
    before = checkpoint.read_bytes(), config.read_bytes(), names(tmp_path)
    for out, match in (
        ('net.pth', 'would overwrite the input'),
        ('link.pth', 'would overwrite the input'),
        ('same.pth', 'would overwrite the input'),
        ('model.pth', r'model\.py. would overwrite the input'),
        ('folder.pth', 'is a folder'),
        ('out.onnx', r'ends in \.pth, \.pt or \.safetensors'),
        ('out', r'ends in \.pth, \.pt or \.safetensors'),
    ):
        with pytest.raises(InputError, match=match):
            convert_to_deploy(config, checkpoint, tmp_path / out, cfg_options=options_of('cls'))
    assert before == (checkpoint.read_bytes(), config.read_bytes(), names(tmp_path))


def load_tool():
    path = ROOT / 'tools' / 'switch_to_deploy.py'
    spec = importlib.util.spec_from_file_location('switch_to_deploy_tool', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tool(checkpoints, tmp_path, capsys, monkeypatch):
    main = load_tool().main
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = ['{config_of('cls')}']\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY})))\n'
    )
    options = [f'{k}={v}' for k, v in options_of('cls').items() if k != 'model.backbone.arch']
    argv = [str(config), str(checkpoints['cls']), str(tmp_path / 'out.pth')]
    argv += ['--cfg-options', *options]
    assert call_tool(main, argv) == 0
    printed = capsys.readouterr().out
    rows = ('units fused', 'BN folded', 'parameters', 'MACs', 'checkpoint', 'latency', 'weights')
    assert all(
        f'{row}:' in printed for row in (*rows, 'difference, float64', 'difference, float32')
    )
    assert str(tmp_path / 'out.json') in printed
    monkeypatch.setattr(surgery, 'fuse_branches', fused_wrongly)
    before = (tmp_path / 'out.pth').read_bytes()
    assert call_tool(main, argv) == 1
    assert 'error: the fused model differs' in capsys.readouterr().err
    assert (tmp_path / 'out.pth').read_bytes() == before
    argv[1] = str(tmp_path / 'no.pth')
    assert call_tool(main, argv) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_mmdets_own_faster_rcnn_with_nothing_changed_but_the_backbone(tmp_path):
    """Two stages: proposals come from one model, or a last digit would choose others."""
    mmdet = pytest.importorskip('mmdet')
    base = Path(mmdet.__file__).parent / '.mim/configs/_base_/models/faster-rcnn_r50_fpn.py'
    config = tmp_path / 'faster.py'
    config.write_text(
        f"_base_ = ['{base}']\n"
        "default_scope = 'mmdet'\n"
        "backbone = dict(_delete_=True, type='mobileone_mm.MobileOne', out_indices=(0, 1, 2, 3),\n"
        f'                arch={TINY})\n'
        'model = dict(\n'
        '    backbone=backbone,\n'
        '    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),\n'
        '    rpn_head=dict(in_channels=16, feat_channels=16),\n'
        '    roi_head=dict(bbox_roi_extractor=dict(out_channels=16),\n'
        '                  bbox_head=dict(in_channels=16, fc_out_channels=32)),\n'
        '    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20)),\n'
        ')\n'
        "test_pipeline = [dict(type='Resize', scale=(96, 64))]\n"
    )
    model = randomize_(build_model(load_config(config)))
    torch.save(model.state_dict(), tmp_path / 'net.pth')
    report = convert_to_deploy(config, tmp_path / 'net.pth', tmp_path / 'out.pth')
    # five feature maps, five pairs of the first stage, scores and boxes of the second, the regions
    # that they are of, one unit
    assert len(report['proof']['differences']) == 2 * 2 * (5 + 10 + 2 + 1 + 1)
    assert report['dropped'] == []
    text = (tmp_path / 'out.py').read_text()
    assert '_base_' not in text
    assert str(base.parent) not in text
