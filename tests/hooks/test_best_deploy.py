"""The deploy pair beside the best checkpoint of a run."""

import json
import logging
import random
import re
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mobileone_mm.errors import ProofError
from mobileone_mm.hooks import best_deploy
from mobileone_mm.hooks.best_deploy import BestDeployHook
from mobileone_mm.weights.names import form_of
from mobileone_mm.weights.reading import read_checkpoint

HOOK = """
custom_hooks = [
    dict(type='mmengine.EMAHook', momentum=0.3, update_buffers=True),
    dict(type='mobileone_mm.BestDeployHook'),
    dict(type='mobileone_mm.DeployEvalHook'),
]
"""
# A metric of the test's own: what the epochs are worth is given, so that each way can be made.
GIVEN = """
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

@METRICS.register_module()
class Given(BaseMetric):
    def __init__(self, values):
        super().__init__()
        self.values = list(values)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(given=self.values.pop(0))
"""
BY_VALUE = """
val_evaluator = [dict(type='Given', values={values})]
default_hooks = dict(checkpoint=dict(save_best='given', rule='greater', max_keep_ckpts=1))
train_cfg = dict(max_epochs={epochs})
train_dataloader.update(batch_size=8)
custom_imports = dict(imports=['mobileone_mm', 'given_metric'], allow_failed_imports=False)
"""


@pytest.fixture
def valued(tiny_config, tmp_path, monkeypatch):
    """Write a config whose epochs have the given values."""
    (tmp_path / 'given_metric.py').write_text(GIVEN)
    monkeypatch.syspath_prepend(tmp_path)

    def write(*values):
        return tiny_config('cls', HOOK + BY_VALUE.format(values=values, epochs=len(values)))

    return write


def names(folder, pattern='best_*'):
    return sorted(path.name for path in folder.glob(pattern))


def log_of(folder):
    return ''.join(path.read_text() for path in sorted(folder.glob('*/*.log')))


@pytest.mark.parametrize(
    'task', ['cls', *(pytest.param(task, marks=pytest.mark.slow) for task in ('det', 'seg'))]
)
def test_the_pair_gives_the_metric_of_the_log(task, tiny_config, tool, tmp_path):
    config = tiny_config(task, HOOK)
    run = tmp_path / 'run'
    assert tool('train', config, '--work-dir', run) == 0
    name = {'cls': 'accuracy_top1', 'det': 'coco_bbox_mAP', 'seg': 'mIoU'}[task]
    pair = run / f'best_{name}_epoch_1_deploy.pth'
    assert names(run) == [
        f'{pair.stem[:-7]}.pth',
        *(f'{pair.stem}{s}' for s in ('.json', '.pth', '.py')),
    ]
    assert form_of(read_checkpoint(pair)['state_dict']) == 'deploy'
    report = json.loads(pair.with_suffix('.json').read_text())
    assert report['source']['file'] == f'best_{name}_epoch_1.pth'

    assert 'Deploy form proved: units differ by at most' in log_of(run)
    scalars = next(run.glob('*/vis_data/scalars.json')).read_text().splitlines()
    logged = json.loads(scalars[-1])
    out = tmp_path / 'metrics.json'
    arguments = ('test', pair.with_suffix('.py'), pair, '--work-dir', tmp_path / 'test')
    assert tool(*arguments, '--out', out) == 0
    metrics = json.loads(out.read_text())
    compared = {key for key in metrics if key in logged and 'time' not in key}
    assert name in {key.replace('/', '_') for key in compared}
    for key in compared:
        assert metrics[key] == pytest.approx(logged[key], abs=0.01, nan_ok=True), key


def test_the_random_state_is_left_alone(tmp_path, monkeypatch):
    """A run of mmengine's own Runner must be the same with and without a conversion."""
    states = []

    def draw(config, *_, **__):
        assert config.a == 1
        states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()))
        random.random(), np.random.rand(), torch.rand(1)
        return Mock()

    monkeypatch.setattr(best_deploy, 'prepare_conversion', draw)
    runner = SimpleNamespace(cfg=Config(dict(a=1)), logger=logging.getLogger('test'))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for _ in range(2):
        BestDeployHook()._renew(runner, 'best', str(tmp_path / 'best.pth'))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for first, second in ((before, after), states):
        assert first[:2] == second[:2]
        assert torch.equal(first[2], second[2])


def test_a_failed_proof_is_logged_and_the_older_pair_stays(valued, tool, tmp_path, monkeypatch):
    convert = best_deploy.prepare_conversion
    calls = []

    def fail_from_the_second_on(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise ProofError('the fused model differs')
        if len(calls) == 3:
            raise RuntimeError('a fault of the program')
        return convert(*args, **kwargs)

    monkeypatch.setattr(best_deploy, 'prepare_conversion', fail_from_the_second_on)
    run = tmp_path / 'run'
    assert tool('train', valued(10, 20, 30), '--work-dir', run) == 0
    log = log_of(run)
    assert re.search(
        r'ERROR - .*No deploy pair of best_given_epoch_2\.pth: the fused model dif.*\n(?!Trace)',
        log,
    )
    assert re.search(r'ERROR - .*No deploy pair of best_given_epoch_3\.pth: .*\nTraceback', log)
    assert names(run, 'best_*.pth') == ['best_given_epoch_1_deploy.pth', 'best_given_epoch_3.pth']
    assert (run / 'epoch_3.pth').is_file()


def test_older_pairs_go_when_the_new_one_is_there(valued, tool, tmp_path):
    """A resumed run writes what is missing and removes what is old."""
    run = tmp_path / 'run'
    assert tool('train', valued(10, 30, 20), '--work-dir', run) == 0
    pair = [f'best_given_epoch_2_deploy{s}' for s in ('.json', '.pth', '.py')]
    assert names(run) == ['best_given_epoch_2.pth', *pair]
    assert len(re.findall('The deploy pair of the best checkpoint is written', log_of(run))) == 2
    for path in run.glob('*_deploy*'):
        path.unlink()
    resumed = ('--work-dir', run, '--resume')
    assert tool('train', valued(*4 * [5]), *resumed) == 0
    assert names(run) == ['best_given_epoch_2.pth', *pair]
    assert tool('train', valued(*5 * [40]), *resumed) == 0
    assert names(run, 'best_*.pth') == ['best_given_epoch_5.pth', 'best_given_epoch_5_deploy.pth']
    assert len(names(run, '*_deploy*')) == 3


def test_runs_in_which_it_cannot_work_are_refused(tiny_config, tool, tmp_path, capsys):
    config = tiny_config('cls', HOOK)
    run = ('train', config, '--work-dir', tmp_path / 'run', '--cfg-options')
    assert tool(*run, 'default_hooks.checkpoint.save_best=None') == 2
    assert 'set default_hooks.checkpoint.save_best' in capsys.readouterr().err
    assert tool(*run, 'custom_hooks.1.tolerance=2') == 2
    assert 'custom_hooks.1: BestDeployHook: tolerance: got 2' in capsys.readouterr().err
    assert tool(*run, 'model.backbone.deploy=True') == 0
    assert not names(tmp_path / 'run', '*_deploy*')


@pytest.mark.parametrize('tolerance', [0, 1])
def test_the_tolerance_is_between_zero_and_one(tolerance):
    with pytest.raises(ValueError, match=f'^tolerance: got {tolerance}'):
        BestDeployHook(tolerance)
