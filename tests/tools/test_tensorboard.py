"""Curves, schedules and drawn predictions of a run, read back from TensorBoard's file."""

import cv2
import numpy as np
import pytest

pytest.importorskip('tensorboard')

DECAY = """
param_scheduler = [
    dict(type='mmpretrain.CosineAnnealingWeightDecay', eta_min=1e-5, by_epoch=False, end=4)
]
custom_hooks = [dict(type='mobileone_mm.PredictionSamplesHook', num=2)]
train_cfg = dict(max_epochs=2)
"""


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob('events.out.tfevents.*')
    accumulator = EventAccumulator(str(file))
    accumulator.Reload()
    return accumulator


@pytest.mark.parametrize(
    ('task', 'metric', 'validation'),
    [('cls', 'accuracy/top1', 8), ('det', 'coco/bbox_mAP', 4), ('seg', 'mIoU', 4)],
)
def test_by_one_option(task, metric, validation, trained_run):
    run = trained_run(task)
    found = events(run)
    scalars = found.Tags()['scalars']
    assert {'lr', 'loss', 'weight_decay', 'weight_decay_min', metric} <= set(scalars)
    assert {event.value for event in found.Scalars('weight_decay_min')} == {0.0}
    images = found.Tags()['images']
    assert len(images) == validation
    assert all(name.startswith('val_') for name in images)
    # The same images as files, and something is in them.
    files = list(run.rglob('vis_image/val_*.png'))
    assert len(files) == validation
    assert all(np.std(cv2.imread(str(file))) > 5 for file in files)


def test_own_hook_spreads_its_samples_and_curves_follow_the_schedule(tiny_config, tool, tmp_path):
    config, run = tiny_config('cls', DECAY), tmp_path / 'run'
    assert tool('train', config, '--work-dir', run, '--tensorboard') == 0
    names = sorted(path.name for path in run.rglob('vis_image/*.png'))
    assert [name.split('_')[1] for name in names] == ['000000', '000000', '000007', '000007']
    assert {name.rpartition('_')[2] for name in names} == {'2.png', '4.png'}
    values = [event.value for event in events(run).Scalars('weight_decay')]
    assert values[0] == pytest.approx(1e-4)
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]
