"""tools/train.py and tools/test.py on the three tasks, with tiny nets and tiny data."""

from __future__ import annotations

import csv
import json
import pickle

import pytest
import torch

from mobileone_mm.weights.reading import read_checkpoint


@pytest.fixture(params=['cls', 'det', 'seg'])
def task(request):
    return request.param


def test_train_then_test(task, tiny_config, tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(task)
    assert tool('train', config) == 0
    work_dir = tmp_path / 'work_dirs' / task
    checkpoint = work_dir / 'epoch_1.pth'
    assert (work_dir / f'{task}.py').is_file(), 'the config is dumped into the work dir'
    assert (work_dir / 'last_checkpoint').read_text() == str(checkpoint)
    assert 'optimizer' in read_checkpoint(checkpoint)

    out = tmp_path / 'metrics.json'
    shown = tmp_path / 'shown'
    assert tool('test', config, checkpoint, '--out', out, '--show-dir', shown) == 0
    metrics = json.loads(out.read_text())
    name = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP', 'seg': 'mIoU'}[task]
    assert isinstance(metrics[name], float)
    assert len(list(shown.rglob('*.*'))) == {'cls': 8, 'det': 4, 'seg': 4}[task]


def test_validation_equals_test(tiny_config, tool, tmp_path):
    """What the log says after training is what tools/test.py finds with the checkpoint."""
    config = tiny_config('cls')
    assert tool('train', config, '--work-dir', tmp_path / 'run') == 0
    log = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    validated = json.loads(log[-1])['accuracy/top5']
    out = tmp_path / 'metrics.json'
    run = ('test', config, tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'test')
    assert tool(*run, '--out', out) == 0
    assert json.loads(out.read_text())['accuracy/top5'] == pytest.approx(validated, abs=1e-4)


def test_predictions_csv(tiny_config, tool, tmp_path, roots):
    config = tiny_config('cls')
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    out = tmp_path / 'predictions.csv'
    run = ('test', config, tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'test')
    assert tool(*run, '--out', out) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    lines = (roots['IMAGENET_ROOT'] / 'meta' / 'val.txt').read_text().splitlines()
    assert [f'{row["file"]} {row["label_index"]}' for row in rows] == lines
    assert all(0 <= int(row['predicted_index']) < 1000 for row in rows)
    assert all(0 < float(row['probability']) <= 1 for row in rows)


def test_predictions_pickle(tiny_config, tool, tmp_path):
    config = tiny_config('det')
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    out = tmp_path / 'predictions.pkl'
    run = ('test', config, tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'test')
    assert tool(*run, '--out', out) == 0
    with out.open('rb') as file:
        samples = pickle.load(file)
    assert len(samples) == 4
    assert samples[0]['pred_instances']['bboxes'].shape[1] == 4


def test_options_and_work_dir(tiny_config, tool, tmp_path):
    config = tiny_config('cls', "work_dir = 'from_config'\n")
    options = ('--cfg-options', 'optim_wrapper.optimizer.lr=0.5', 'default_hooks.logger.interval=2')
    assert tool('train', config, '--work-dir', tmp_path / 'flag', '--no-validate', *options) == 0
    dumped = (tmp_path / 'flag' / 'cls.py').read_text()
    assert 'lr=0.5' in dumped
    assert not (tmp_path / 'from_config').exists()
    optimizer = read_checkpoint(tmp_path / 'flag' / 'epoch_1.pth')['optimizer']
    assert optimizer['param_groups'][0]['initial_lr'] == 0.5


def test_keeps_checkpoints(tiny_config, tool, tmp_path):
    config = tiny_config('cls')
    options = ('train_cfg.max_epochs=3', 'default_hooks.checkpoint.max_keep_ckpts=2')
    run = tmp_path / 'run'
    assert tool('train', config, '--work-dir', run, '--no-validate', '--cfg-options', *options) == 0
    assert sorted(file.name for file in run.glob('epoch_*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
    stored = read_checkpoint(run / 'epoch_3.pth')['message_hub']['runtime_info']
    assert stored['keep_ckpt_ids'] == [2, 3]


def test_fine_tuning_takes_the_backbone(tiny_config, tool, tmp_path):
    config = tiny_config('cls')
    assert tool('train', config, '--work-dir', tmp_path / 'a', '--no-validate') == 0
    source = tmp_path / 'a' / 'epoch_1.pth'
    detector = tiny_config('det', f"load_from = '{source}'\n")
    options = (
        '--cfg-options',
        'optim_wrapper.optimizer.lr=0.0',
        'optim_wrapper.optimizer.weight_decay=0',
    )
    assert tool('train', detector, '--work-dir', tmp_path / 'b', '--no-validate', *options) == 0
    before = read_checkpoint(source)['state_dict']
    after = read_checkpoint(tmp_path / 'b' / 'epoch_1.pth')['state_dict']
    key = 'backbone.stage1.0.branch_conv_list.0.conv.weight'
    assert torch.equal(before[key], after[key])


def test_a_test_leaves_the_config_of_the_training(tiny_config, tool, tmp_path):
    """The config in the work dir does not change; that of the test is beside its log."""
    run = tmp_path / 'run'
    assert tool('train', tiny_config('cls'), '--work-dir', run, '--no-validate') == 0
    before = (run / 'cls.py').read_bytes()
    options = ('--work-dir', run, '--cfg-options', 'test_dataloader.batch_size=3')
    assert tool('test', run / 'cls.py', run / 'epoch_1.pth', *options) == 0
    assert (run / 'cls.py').read_bytes() == before
    assert 'batch_size=3' in max(run.glob('*/cls.py')).read_text()
