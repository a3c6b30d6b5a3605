"""Curves, schedules and drawn predictions of a run, read back from TensorBoard's file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

METRICS = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP', 'seg': 'mIoU'}
DECAY = """
param_scheduler = [
    dict(type='mmpretrain.CosineAnnealingWeightDecay', eta_min=1e-5, by_epoch=False, end=4)
]
"""


def events(folder):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob('events.out.tfevents.*')
    accumulator = EventAccumulator(str(file))
    accumulator.Reload()
    return accumulator


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_by_one_option(task, tiny_config, tool, tmp_path):
    pytest.importorskip('tensorboard')
    config = tiny_config(task, DECAY if task == 'cls' else '')
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--tensorboard') == 0
    found = events(tmp_path / 'run')
    scalars = found.Tags()['scalars']
    assert {'lr', 'loss', 'weight_decay', 'weight_decay_min', METRICS[task]} <= set(scalars)
    assert {event.value for event in found.Scalars('weight_decay_min')} == {0.0}
    images = found.Tags()['images']
    validation = 8 if task == 'cls' else 4  # the size of the tiny sets
    assert len(images) == validation
    assert all(name.startswith('val_') for name in images)
    # The same images as files, and something is in them.
    files = list((tmp_path / 'run').rglob('vis_image/val_*.png'))
    assert len(files) == validation
    assert all(np.std(cv2.imread(str(file))) > 5 for file in files)
    if task == 'cls':
        values = [event.value for event in found.Scalars('weight_decay')]
        assert values[0] == pytest.approx(1e-4)
        assert values == sorted(values, reverse=True)
        assert values[-1] < values[0]


def test_samples_are_spread_and_the_same_each_time(tiny_config, tool, tmp_path):
    hook = "custom_hooks = [dict(type='mobileone_mm.PredictionSamplesHook', num=2)]\n"
    config = tiny_config('cls', hook + 'train_cfg = dict(max_epochs=2)\n')
    assert tool('train', config, '--work-dir', tmp_path / 'run') == 0
    names = sorted(path.name for path in (tmp_path / 'run').rglob('vis_image/*.png'))
    assert [name.split('_')[1] for name in names] == ['000000', '000000', '000007', '000007']
    assert {name.rpartition('_')[2] for name in names} == {'2.png', '4.png'}
