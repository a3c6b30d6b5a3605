"""tools/train.py and tools/test.py on the three tasks, with tiny nets and tiny data."""

import csv
import json
import pickle
import shutil

import pytest

from helpers import scalars
from mobileone_mm.weights.reading import read_checkpoint


@pytest.mark.parametrize(
    ('task', 'metric', 'images'),
    [('cls', 'accuracy/top1', 8), ('det', 'coco/bbox_mAP', 4), ('seg', 'mIoU', 4)],
)
def test_train_then_test(
    task, metric, images, trained_run, tiny_config, tool, tmp_path, monkeypatch
):
    """What the log says after training is what tools/test.py finds with the checkpoint."""
    work_dir = trained_run(task)
    checkpoint = work_dir / 'epoch_1.pth'
    assert (work_dir / f'{task}.py').is_file(), 'the config is dumped into the work dir'
    assert (work_dir / 'last_checkpoint').read_text() == str(checkpoint)
    assert 'optimizer' in read_checkpoint(checkpoint)

    monkeypatch.chdir(tmp_path)
    out, shown = tmp_path / 'metrics.json', tmp_path / 'shown'
    assert tool('test', tiny_config(task), checkpoint, '--out', out, '--show-dir', shown) == 0
    metrics = json.loads(out.read_text())
    assert isinstance(metrics[metric], float)
    assert len(list(shown.rglob('*.*'))) == images
    validated = {name: scalars(work_dir)[-1][name] for name in metrics}
    assert metrics == pytest.approx(validated, abs=1e-4)


def test_predictions_csv_in_the_folder_of_the_run(trained_run, tool, tmp_path, roots):
    """The config in the work dir does not change; that of the test is beside its log."""
    run = shutil.copytree(trained_run('cls'), tmp_path / 'run')
    before = (run / 'cls.py').read_bytes()
    options = ('--work-dir', run, '--cfg-options', 'test_dataloader.batch_size=3')
    out = tmp_path / 'predictions.csv'
    assert tool('test', run / 'cls.py', run / 'epoch_1.pth', '--out', out, *options) == 0
    assert (run / 'cls.py').read_bytes() == before
    assert 'batch_size=3' in max(run.glob('*/cls.py')).read_text()
    with out.open() as file:
        rows = list(csv.DictReader(file))
    lines = (roots['IMAGENET_ROOT'] / 'meta' / 'val.txt').read_text().splitlines()
    assert [f'{row["file"]} {row["label_index"]}' for row in rows] == lines
    assert all(0 <= int(row['predicted_index']) < 1000 for row in rows)
    assert all(0 < float(row['probability']) <= 1 for row in rows)


def test_predictions_pickle(trained_run, tiny_config, tool, tmp_path):
    out = tmp_path / 'predictions.pkl'
    run = ('test', tiny_config('det'), trained_run('det') / 'epoch_1.pth', '--work-dir', tmp_path)
    assert tool(*run, '--out', out) == 0
    with out.open('rb') as file:
        samples = pickle.load(file)
    assert len(samples) == 4
    assert samples[0]['pred_instances']['bboxes'].shape[1] == 4


def test_options_and_work_dir(tiny_config, tool, tmp_path):
    run, config = tmp_path / 'flag', tiny_config('cls', "work_dir = 'from_config'\n")
    options = ('optim_wrapper.optimizer.lr=0.5', 'default_hooks.logger.interval=2')
    assert tool('train', config, '--work-dir', run, '--no-validate', '--cfg-options', *options) == 0
    assert 'lr=0.5' in (run / 'cls.py').read_text()
    assert not (tmp_path / 'from_config').exists()
    stored = read_checkpoint(run / 'epoch_1.pth')
    assert stored['optimizer']['param_groups'][0]['initial_lr'] == 0.5
