"""The deploy pair beside the best checkpoint of a run."""

import json
import logging
import random
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from helpers import scalars
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.hooks import best_deploy
from mobileone_mm.hooks.best_deploy import BestDeployHook
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import log_of, metrics_of

HOOK = """
custom_hooks = [
    dict(type='mmengine.EMAHook', momentum=0.3, update_buffers=True),
    dict(type='mobileone_mm.BestDeployHook'),
    dict(type='mobileone_mm.DeployEvalHook'),
]
"""


def names(folder, pattern='best_*'):
    return sorted(path.name for path in folder.glob(pattern))


@pytest.mark.parametrize(
    'task', ['cls', *(pytest.param(task, marks=pytest.mark.slow) for task in ('det', 'seg'))]
)
def test_the_pair_gives_the_metric_of_the_log(task, train, tool, tmp_path):
    """And a resumed run writes the pair that is missing."""
    run = train(task, HOOK, val=True)
    name = {'cls': 'accuracy_top1', 'det': 'coco_bbox_mAP', 'seg': 'mIoU'}[task]
    pair = run / f'best_{name}_epoch_1_deploy.pth'
    files = [f'{pair.stem}{suffix}' for suffix in ('.json', '.pth', '.py')]
    assert names(run) == [f'best_{name}_epoch_1.pth', *files]
    assert form_of(read_checkpoint(pair)['state_dict']) == 'deploy'
    report = json.loads(pair.with_suffix('.json').read_text())
    assert report['source']['file'] == f'best_{name}_epoch_1.pth'

    assert 'Deploy form proved: units differ by at most' in log_of(run)
    logged = scalars(run)[-1]
    metrics = metrics_of(tool, pair.with_suffix('.py'), pair, tmp_path)
    compared = {key for key in metrics if key in logged and 'time' not in key}
    assert name in {key.replace('/', '_') for key in compared}
    for key in compared:
        assert metrics[key] == pytest.approx(logged[key], abs=0.01, nan_ok=True), key

    for path in run.glob('*_deploy*'):
        path.unlink()
    train(task, HOOK, '--resume', '--cfg-options', 'train_cfg.max_epochs=2', val=True)
    (best,) = run.glob('best_*[0-9].pth')
    assert names(run, '*_deploy*') == [f'{best.stem}_deploy{s}' for s in ('.json', '.pth', '.py')]


def test_the_random_state_is_left_alone(tmp_path, monkeypatch):
    """A run of mmengine's own Runner must be the same with and without a conversion."""

    def state():
        generators = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        return random.getstate(), *generators

    states = []

    def draw(config, *given, backbone_only):
        assert config.a == 1
        assert given == (str(tmp_path / 'best.pth'), tmp_path / 'best_deploy.pth', (), 0.1, 'cpu')
        assert backbone_only is False
        states.append(state())
        random.random(), np.random.rand(), torch.rand(1)
        return Mock()

    monkeypatch.setattr(best_deploy, 'prepare_conversion', draw)
    runner = SimpleNamespace(cfg=Config(dict(a=1)), logger=logging.getLogger('test'))
    before = state()
    for _ in range(2):
        BestDeployHook(0.1)._renew(runner, 'best', str(tmp_path / 'best.pth'))
    assert state() == before
    assert states[0] == states[1]


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """A hook whose conversions only note their checkpoint, the run of a unit, and the noted names."""
    names = []
    write = SimpleNamespace(write=lambda: None)
    monkeypatch.setattr(
        best_deploy, 'prepare_conversion', lambda _, path, *__, **___: names.append(path) or write
    )
    for name in ('a', 'b', 'a_deploy'):
        (tmp_path / f'{name}.pth').touch()
    info = {f'best_ckpt_{key}': str(tmp_path / f'{key}.pth') for key in ('a', 'b', 'gone')}
    info |= dict(best_ckpt=None, last_ckpt=info['best_ckpt_a'])
    runner = SimpleNamespace(
        cfg={},
        logger=Mock(),
        message_hub=SimpleNamespace(runtime_info=info),
        model=MobileOneBlock(4, 4, 3),
        _val_loop=object(),
    )
    runner.hooks = [CheckpointHook(), CheckpointHook(save_best='top1', rule='greater')]
    return BestDeployHook(), runner, names


def test_each_best_checkpoint_is_converted_once(converted, tmp_path, monkeypatch):
    """Of each metric, in the main process of a training; not what has a pair at the start."""
    hook, runner, names = converted
    hook.after_val_epoch(None)  # a validation without a training
    hook.before_train(runner)
    assert hook._pairs == dict(best_ckpt_a=tmp_path / 'a_deploy.pth')
    monkeypatch.setattr(best_deploy, 'is_main_process', lambda: False)
    hook.after_val_epoch(runner)
    assert not names
    monkeypatch.setattr(best_deploy, 'is_main_process', lambda: True)
    for _ in range(2):
        hook.after_val_epoch(runner)
    assert names == [str(tmp_path / 'b.pth')]
    runner.model = MobileOneBlock(4, 4, 3, deploy=True)
    hook.before_train(runner)
    assert runner.logger.info.call_args.args[0].startswith('The model is in deploy form')
    hook.after_val_epoch(None)
    runner.model, runner.hooks[0].out_dir = MobileOneBlock(4, 4, 3), 's3://bucket'
    with pytest.raises(InputError, match='writes to local disks only; remove the out_dir'):
        hook.before_train(runner)
    del runner.hooks[1]
    line = 'no best checkpoint is saved; set default_hooks.checkpoint.save_best to'
    with pytest.raises(InputError, match=line):
        hook.before_train(runner)
    runner._val_loop = None  # --no-validate removes save_best, too
    hook.before_train(runner)
    assert runner.logger.info.call_args.args[0].startswith('The run has no validation')


def test_files_of_the_previous_pair(converted, tmp_path):
    """They go with a new pair, except those that another metric has, or that are gone already."""
    hook, runner, _ = converted
    pair = tmp_path / 'a_deploy.pth'
    hook._pairs = dict(first=pair, second=pair)
    hook._renew(runner, 'first', str(tmp_path / 'b.pth'))
    assert pair.is_file()
    pair.with_suffix('.json').touch()
    hook._renew(runner, 'second', str(tmp_path / 'b.pth'))
    assert not list(tmp_path.glob('a_deploy.*'))
    hook._renew(runner, 'second', str(tmp_path / 'a.pth'))
    assert hook._pairs == dict(first=tmp_path / 'b_deploy.pth', second=pair)


@pytest.mark.parametrize(
    ('error', 'traceback'),
    [(InputError('x'), False), (ProofError('x'), False), (OSError('x'), False), (KeyError(), True)],
)
def test_faults_of_a_conversion(error, traceback, converted, tmp_path, monkeypatch):
    """They are logged, and the older pair stays."""
    hook, runner, _ = converted
    monkeypatch.setattr(best_deploy, 'prepare_conversion', Mock(side_effect=error))
    hook._pairs = dict(first=tmp_path / 'a_deploy.pth')
    hook._renew(runner, 'first', str(tmp_path / 'b.pth'))
    ((line,), options) = runner.logger.error.call_args
    assert line.startswith('No deploy pair of b.pth: ')
    assert traceback or line.endswith(': x')
    assert options == dict(exc_info=traceback)
    assert hook._pairs['first'].is_file()
