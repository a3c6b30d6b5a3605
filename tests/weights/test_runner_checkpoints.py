"""mmengine's own checkpoints through the safe loader: resume, load, Pretrained."""

from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import Runner
from mmengine.runner import checkpoint as host
from torch import nn

from helpers import Classifier, Pickled, randomize_, same
from mobileone_mm import MobileOne
from mobileone_mm.errors import InputError
from mobileone_mm.weights.allowed import ALLOWED
from mobileone_mm.weights.mmengine_loader import allow_mmengine_globals, for_host, load_from_local
from mobileone_mm.weights.names import to_scheme
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import Classifier as Trained
from ..training.conftest import Images, loader

TINY = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.125] * 4)


class Coloured(Images):
    metainfo = dict(classes=tuple('abcd'), palette=np.array([[1, 2, 3]], dtype=np.uint8))


def make_runner(work_dir: Path, epochs: int, **kwargs) -> Runner:
    return Runner(
        Trained(),
        str(work_dir),
        train_dataloader=dict(loader(shuffle=True), dataset=Coloured()),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=3)],
        custom_hooks=[dict(type='EMAHook')],
        randomness=dict(seed=0),
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}-{epochs}',
        **kwargs,
    )


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    """A work folder with the checkpoints of three epochs."""
    folder = tmp_path_factory.mktemp('run')
    make_runner(folder, 3).train()
    return folder


def test_history_is_real_again(run, monkeypatch):
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {})  # as in a new process
    read = read_checkpoint(run / 'epoch_3.pth')
    loss = read['message_hub']['log_scalars']['train/loss']
    assert type(loss) is HistoryBuffer
    assert type(loss.data[0]) is np.ndarray
    assert len(loss.data[0]) == 3 * 3
    assert loss.statistics('mean', 2) == pytest.approx(loss.data[0][-2:].mean())
    loss.update(0.5)
    assert loss.current() == 0.5
    assert read['meta']['dataset_meta']['palette'].tolist() == [[1, 2, 3]]


def test_a_file_cannot_change_the_statistics_of_the_process(tmp_path):
    buffer = HistoryBuffer([1.0], [1])
    buffer.__dict__['statistics_methods'] = {}
    forged = {'mean': dict, 'evil': set}
    before = dict(HistoryBuffer._statistics_methods)
    HistoryBuffer._statistics_methods.update(forged)
    try:
        torch.save({'state_dict': {'a': torch.ones(1)}, 'x': buffer}, tmp_path / 'a.pth')
    finally:
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(before)
    with pytest.raises(InputError, match='refers to code'):  # dict
        read_checkpoint(tmp_path / 'a.pth')
    assert HistoryBuffer._statistics_methods == before


def test_resume_continues_the_message_hub(run, tmp_path, safe_loader):
    runner = make_runner(tmp_path, 3, resume=True, load_from=str(run / 'epoch_2.pth'))
    runner.train()
    whole = read_checkpoint(run / 'epoch_3.pth')
    resumed = read_checkpoint(tmp_path / 'epoch_3.pth')
    for part in ('train/loss', 'train/lr'):
        pair = [c['message_hub']['log_scalars'][part].data[0] for c in (whole, resumed)]
        assert len(pair[0]) == len(pair[1])
        assert np.array_equal(pair[0][:6], pair[1][:6])
    assert resumed['meta']['epoch'] == 3


def test_hosts_own_loader_after_import(run):
    """The hosts' own test scripts do not use the safe loader."""
    before = torch.serialization.get_safe_globals()
    try:
        allow_mmengine_globals()
        read = host.CheckpointLoader.load_checkpoint(str(run / 'epoch_3.pth'), map_location='cpu')
        loss = read['message_hub']['log_scalars']['train/loss']
        assert type(loss) is HistoryBuffer
        assert loss.statistics('max') == loss.data[0].max()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_runner_refuses_code(tmp_path, safe_loader):
    runner = make_runner(tmp_path / 'run', 1)
    evil = Pickled(eval, f'open({str(tmp_path / "marker")!r}, "w")')
    torch.save({'state_dict': runner.model.state_dict(), 'meta': evil}, tmp_path / 'evil.pth')
    with pytest.raises(InputError, match='refers to code'):
        runner.load_checkpoint(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'marker').exists()


@pytest.fixture
def apple_file(tmp_path) -> tuple[Path, MobileOne]:
    model = MobileOne(TINY, deploy=True)
    head = {'linear.weight': torch.ones(2, 64), 'linear.bias': torch.ones(2)}
    torch.save({**to_scheme(model.state_dict(), 'apple'), **head}, tmp_path / 'apple.pth.tar')
    return tmp_path / 'apple.pth.tar', model


def test_init_of_a_plain_module_without_the_counters_of_bn(tmp_path, said):
    path, source = str(tmp_path / 'a.pth'), randomize_(Classifier(TINY))
    state = source.state_dict()
    torch.save({k: v for k, v in state.items() if 'num_batches' not in k}, path)
    model = Classifier(TINY)
    PretrainedInit(path)(model)
    assert same(model, source)
    assert said == [f'load model from: {path}']


def test_init_cfg_of_a_whole_model_says_what_stays_random(
    apple_file, safe_loader, said, monkeypatch
):
    name = 'mobileone_mm.weights.mmengine_loader.update_init_info'
    monkeypatch.setattr(name, lambda module, init_info: said.append(init_info))

    class Starting(BaseModule):
        def __init__(self) -> None:
            super().__init__(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
            self.backbone = MobileOne(TINY, deploy=True)
            self.head = nn.Linear(64, 7)

    path, source = apple_file
    model = Starting()
    model.init_weights()
    assert same(model.backbone, source)
    assert said[0] == f'load model from: {path}'
    assert 'lacks 2 tensors of the model' in said[1]
    assert 'head.weight, head.bias' in said[1]
    assert said[2:] == [f'PretrainedInit: load from {path}']


def test_checkpoints_as_the_hosts_take_them():
    nets = (randomize_(Classifier(TINY, deploy=True), seed=seed) for seed in (0, 1))
    state, other = (net.state_dict() for net in nets)
    resumed = {'meta': {'epoch': 1, 'config': 'x'}, 'epoch': 2, 'optimizer': {}}
    kept = {'meta': {'epoch': 1}, 'epoch': 2, 'optimizer': {}}
    lightning = {'state_dict': other, 'callbacks': {'E': {'ema': state}}, 'current_model_state': 1}
    for weights, more in (
        ({'model': other, 'model_ema': {'module': to_scheme(state, 'timm')}, 'net': {}}, {}),
        (lightning, {}),
        ({'state_dict': state, 'ema_state_dict': other, 'message_hub': {}},
         {'ema_state_dict': other, 'message_hub': {}}),
    ):  # fmt: skip
        read = for_host({**weights, **resumed}, 'x.pth')
        assert same(read.pop('state_dict'), state)
        assert read == {**kept, **more}
    wrapped = {f'module.{key}': value for key, value in state.items()}
    assert same(for_host(wrapped, 'x.pth')['state_dict'], state)
    unknown = 'stage0.rbr_conv.0.conv.weight', 'neck.x'  # of a MobileOne, and one more
    for content in ({'a': torch.ones(1)}, {'meta': 3}, dict.fromkeys(unknown, torch.ones(1))):
        assert for_host(content, 'x.pth') is content
    assert for_host({'meta': {'config': 1}, 'n': 1}, 'x.pth') == {'meta': {}, 'n': 1}


def test_the_import_changes_mmengine(apple_file, safe_loader, monkeypatch):
    loader = host.CheckpointLoader
    assert loader._get_checkpoint_loader('mobileone_mm://s0-apple') is load_from_local
    assert all(value.is_meta for value in load_from_local(apple_file[0], 'meta').values())
    # The original mmengine has no list of its own.
    for missing, expected in ((True, set(map(id, ALLOWED))), (False, set())):
        added = []
        monkeypatch.setattr(torch.serialization, 'add_safe_globals', added.extend)
        gone = Mock(side_effect=metadata.PackageNotFoundError)
        monkeypatch.setattr(metadata, 'distribution', gone if missing else str)
        allow_mmengine_globals()
        assert set(map(id, added)) == expected


def test_other_modules_load_as_before(tmp_path, safe_loader):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / 'a.pth')
    model = nn.Linear(3, 2)
    host.load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    with pytest.raises(RuntimeError, match='size mismatch'):
        host.load_checkpoint(nn.Linear(4, 2), str(tmp_path / 'a.pth'), strict=True)
