"""Whole models to deploy pairs: proof, files, metrics and every way in which it must refuse."""

import copy
import errno
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

from helpers import ROOT
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy import config as configs
from mobileone_mm.deploy import convert
from mobileone_mm.deploy.config import build_model
from mobileone_mm.deploy.convert import convert_to_deploy
from mobileone_mm.deploy.forward import RawForward
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.reparam import algebra, surgery

TASKS = ('cls', 'det', 'seg')
EARLIER = '{"written": {"config_sha256": ""}}'  # a report


pytestmark = pytest.mark.usefixtures('safe_loader')


@pytest.fixture
def out(tmp_path) -> Path:
    folder = tmp_path / 'out'
    folder.mkdir()
    return folder / 'net.pth'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_test(cfg: Config, checkpoint: Path, folder: Path) -> tuple[dict, list[torch.Tensor]]:
    """Return metrics and scores (labels, for masks) of the host's own test loop."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(folder)
    cfg.load_from = str(checkpoint)
    cfg.experiment_name = folder.name
    dump = dict(type='DumpResults', out_file_path=str(folder / 'predictions.pkl'))
    cfg.test_evaluator = [cfg.test_evaluator, dump]
    metrics = Runner.from_cfg(cfg).test()
    values = []
    for prediction in pickle.loads((folder / 'predictions.pkl').read_bytes()):
        if 'pred_instances' in prediction:
            values.append(prediction['pred_instances']['scores'])
        elif 'pred_sem_seg' in prediction:
            values.append(prediction['pred_sem_seg']['data'])
        else:
            values.append(prediction['pred_score'])
    return metrics, values


def check_same_function(pairs: list[tuple[Config, Path]]) -> None:
    """Let mmengine load two models strictly, and compare them."""
    models = []
    for cfg, file in pairs:
        models.append(build_model(cfg).eval())
        host.load_checkpoint(models[-1], str(file), map_location='cpu', strict=True)
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = RawForward(models[0])
    with torch.no_grad():
        for expected, got in zip(*(found(model, x) for model in models), strict=True):
            assert torch.allclose(expected, got, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def check_same_metric(pairs: list[tuple[Config, Path]], folder: Path) -> None:
    runs = [run_test(*pair, folder / name) for pair, name in zip(pairs, 'ab', strict=True)]
    (first, expected), (second, values) = runs
    assert first
    assert second == pytest.approx(first, abs=1e-6)
    # A random net's metric is often 0, and 0 == 0 proves little: the predictions are equal, too.
    assert len(values) == len(expected) >= 4
    for one, other in zip(expected, values, strict=True):
        assert one.numel()
        if one.is_floating_point():
            # The last digit decides at a threshold of NMS: one box in a hundred may come or go.
            near = (one[:, None] - other[None]).abs().min(1).values <= 1e-5
            assert float(near.float().mean()) > 0.99
            assert abs(one.numel() - other.numel()) <= 0.01 * one.numel()
        else:
            assert float((one == other).float().mean()) > 0.999


@pytest.mark.parametrize('task', TASKS)
def test_pair_report_and_metric(task, trained, out, tmp_path, monkeypatch, fresh_mmengine):
    config, checkpoint = trained(task)
    Image.effect_noise((50, 40), 60).save(tmp_path / 'noise.png')
    content = torch.load(checkpoint)  # as a Runner with EMA leaves it
    raw = {f'module.{key}': value + 1 for key, value in content['state_dict'].items()}
    content['ema_state_dict'] = {'steps': torch.tensor(3), **raw}
    content['optimizer'] = {'state': {}}
    content['meta']['mmengine_version'] = '0.10.7'
    content['meta']['dataset_meta']['palette'] = torch.tensor([[1, 2, 3]]).numpy()
    torch.save(content, checkpoint)
    images = [tmp_path / 'noise.png'] if task == 'det' else []
    tolerance = 0.01 if task == 'seg' else None
    report = convert_to_deploy(config, checkpoint, out, images=images, tolerance=tolerance)

    assert names(out.parent) == ['net.json', 'net.pth', 'net.py']
    assert report == json.loads(out.with_suffix('.json').read_text())
    for dtype, limit in (('float64', 1e-9), ('float32', 1e-4)):
        assert report['proof'][dtype]['greatest_relative'] < limit
    assert report['proof']['float32']['tolerance'] == pytest.approx(tolerance or 1.2e-4, rel=0.01)
    size = report['latency']['input'][2:]
    assert report['proof']['differences'][0]['input'] == 'random input of {} x {}'.format(*size)
    inputs = {d['input'] for d in report['proof']['differences']}
    assert len(inputs) == 2 + len(images)
    assert ('noise.png' in inputs) is bool(images)
    sizes = {'before': checkpoint.stat().st_size, 'after': out.stat().st_size}
    assert report['checkpoint_bytes'] == sizes
    assert report['dropped'] == ['ema_state_dict', 'optimizer']
    assert (report['ema'], report['entry']) == (True, 'state_dict')
    assert report['fused_units'] == 1 + 2 * 5
    for count in ('macs', 'parameters'):
        assert report[count]['after'] < report[count]['before']
    assert report['folded']['left'] == []

    # A reader of plain weights is enough: nothing but tensors, texts and lists.
    with monkeypatch.context() as patch:
        patch.setattr('torch._weights_only_unpickler._marked_safe_globals_set', set())
        content = torch.load(out, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    meta = content['meta']
    assert meta['dataset_meta'] == {'classes': ('a', 'b', 'c'), 'palette': [[1, 2, 3]]}
    text = out.with_suffix('.py').read_text()
    assert meta['cfg'] == text
    assert str(ROOT) not in text
    assert 'ROOT:data/' in text

    original = load_config(config)
    original.test_dataloader.persistent_workers = False  # as in the written config
    pairs = [(original, checkpoint), (Config.fromstring(text, '.py'), out)]
    check_same_function(pairs)
    check_same_metric(pairs, tmp_path)


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
def test_a_failed_proof_writes_nothing(trained, out, monkeypatch, module, name, wrong, dtype):
    out.write_text('earlier')
    out.with_suffix('.json').write_text(EARLIER)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(ProofError, match=rf'differs .* in {dtype} .* nothing was written'):
        convert_to_deploy(*trained('cls'), out)
    assert names(out.parent) == ['net.json', 'net.pth']
    assert out.read_text() == 'earlier'


@pytest.mark.parametrize(
    ('right', 'wrong', 'message'),
    [
        # Dilation adds no keys: only the comparison can see that it was lost.
        ('output_stride=16', 'output_stride=32', 'outputs of different shapes|differs'),
        ('deploy=True', 'deploy=False', r'builds another model \(Error.* state_dict'),
    ],
)
def test_a_wrong_config_is_noticed(trained, out, monkeypatch, right, wrong, message):
    text = configs.deploy_config_text
    changed = lambda *args: text(*args).replace(right, wrong)  # noqa: E731
    monkeypatch.setattr(configs, 'deploy_config_text', changed)
    with pytest.raises(ProofError, match=message):
        convert_to_deploy(*trained('seg'), out)
    assert names(out.parent) == []


def test_a_full_disk_leaves_earlier_files(trained, out, monkeypatch):
    for suffix in ('.pth', '.json'):
        out.with_suffix(suffix).write_text(EARLIER)
    written = []
    fsync = os.fsync

    def third_fails(handle):
        written.append(handle)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        fsync(handle)

    monkeypatch.setattr(os, 'fsync', third_fails)
    with pytest.raises(InputError, match='the disk is full'):
        convert_to_deploy(*trained('cls'), out)
    assert names(out.parent) == ['net.json', 'net.pth']
    assert {path.read_text() for path in out.parent.iterdir()} == {EARLIER}


def test_what_cannot_be_converted(trained, out):
    config, checkpoint = trained('cls')
    new = out.parent / 'new' / 'out.pth'
    cases = [
        (dict(deploy=True), {}, r'in deploy form \(deploy=True\) already'),
        (dict(type='MobileOne', arch='s0'), {}, 'no MobileOne of'),
        (dict(arch='s9'), {}, "model.backbone: MobileOne: arch: got 's9'"),
        ({}, {'head.num_classes': 7}, 'another number of classes'),
    ]
    for backbone, others, match in cases:
        options = {f'model.backbone.{key}': value for key, value in backbone.items()}
        options |= {f'model.{key}': value for key, value in others.items()}
        with pytest.raises(InputError, match=match) as caught:
            convert_to_deploy(config, checkpoint, new, options)
        assert '\n' not in str(caught.value)
    for arguments, match in (
        (dict(device='cuda:7'), 'device: '),
        (dict(device='toaster'), r"device: got 'toaster', .* \(Expected one of cpu"),
        (dict(device='meta'), r"device: got 'meta', which torch cannot use \(.*meta"),
        (dict(tolerance=0.0), 'tolerance: '),
        (dict(tolerance=float('nan')), 'tolerance: '),
        (dict(images=['no.png']), 'images: '),
        (dict(checkpoint='no.pth'), 'no such file'),
    ):
        with pytest.raises(InputError, match=match):
            convert_to_deploy(**dict(config=config, checkpoint=checkpoint, out=new) | arguments)
    content = torch.load(checkpoint)
    content['state_dict']['backbone.stage0.branch_scale.norm.running_var'].zero_()
    torch.save(content, checkpoint)
    options = {'model.backbone.norm_cfg': dict(type='BN', eps=0.0)}
    with pytest.raises(InputError, match='checkpoint: .*stage0'):
        convert_to_deploy(config, checkpoint, new, options)
    assert not new.parent.exists()


def test_inputs_are_never_overwritten(trained, tmp_path):
    config, checkpoint = trained('cls')
    (tmp_path / 'link.pth').symlink_to(checkpoint)
    os.link(checkpoint, tmp_path / 'same.pth')
    (tmp_path / 'folder.pth').mkdir()
    for name in ('base.py', 'net.pth', 'old.json'):
        (tmp_path / name).write_text('{}')
    before = checkpoint.read_bytes(), config.read_bytes(), names(tmp_path)
    for out, match in (
        ('base.pth', r'base\.py. exists and is not from an earlier conversion'),
        ('net.pth', r'net\.pth. exists and is not from'),
        ('old.pth', r'old\.json. exists and is not from'),
        (checkpoint.name, 'would overwrite the input'),
        ('link.pth', 'would overwrite the input'),
        ('same.pth', 'would overwrite the input'),
        (f'{config.stem}.pth', rf'{config.stem}\.py. would overwrite the input'),
        ('folder.pth', 'is a folder'),
        ('out.onnx', r'ends in \.pth, \.pt or \.safetensors'),
        ('out', r'ends in \.pth, \.pt or \.safetensors'),
    ):
        with pytest.raises(InputError, match=match):
            convert_to_deploy(config, checkpoint, tmp_path / out)
    assert before == (checkpoint.read_bytes(), config.read_bytes(), names(tmp_path))


def test_tool(tool, trained, out, capsys, monkeypatch):
    config, checkpoint = trained('cls')
    argv = ('switch_to_deploy', config, checkpoint, out)
    assert tool(*argv, '--cfg-options', 'model.backbone.norm_eval=True') == 0
    assert str(out.with_suffix('.json')) in capsys.readouterr().out
    assert 'norm_eval=True' in out.with_suffix('.py').read_text()
    assert tool('switch_to_deploy', config, out, out.with_name('again.pth')) == 2
    assert 'is in deploy form already; there is nothing to fuse' in capsys.readouterr().err
    monkeypatch.setattr(surgery, 'fuse_branches', fused_wrongly)
    before = out.read_bytes()
    assert tool(*argv) == 1
    assert 'error: the fused model differs' in capsys.readouterr().err
    assert out.read_bytes() == before
