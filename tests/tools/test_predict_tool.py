"""tools/predict.py on the three tasks."""

import errno
import json
import os
import re
import shutil
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.models import ImageClassifier

from mobileone_mm.apis import predict
from mobileone_mm.config.read import load_config
from mobileone_mm.data.loading import read_image
from mobileone_mm.deploy.config import build_model
from mobileone_mm.inference.draw import save_image


@pytest.fixture
def weights(tmp_path, fresh_mmengine):
    """Random weights for a config, as a plain state dict or with the classes' names in it."""

    def write(config, **meta):
        torch.manual_seed(0)
        state, path = build_model(load_config(config)).state_dict(), tmp_path / 'weights.pth'
        torch.save({'state_dict': state, 'meta': {'dataset_meta': meta}} if meta else state, path)
        return path

    return write


@pytest.fixture
def images(tmp_path, roots):
    """Three images, two of the same name in different folders, and a broken one."""
    folder = tmp_path / 'images'
    source = sorted((roots['COCO_ROOT'] / 'val2017').glob('*.jpg'))
    for file, name in zip(source, ('a/1.jpg', 'b/1.jpg', 'b/2.jpg'), strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    whole = source[0].read_bytes()
    (folder / 'a' / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def predicted(images, tool, capsys):
    """Predict all images into a folder among them, and return its content."""

    def run(config, checkpoint, *flags):
        capsys.readouterr()
        out = images / 'out'
        assert tool('predict', config, checkpoint, images, '--out-dir', out, *flags) == 0
        said, cut = capsys.readouterr().out, str(images / 'a' / 'cut.jpg')
        assert '3 images predicted' in said
        assert '1 images could not be read' in said
        assert cut in said.splitlines()[-1]
        assert 'broken_files  ' in said  # the changes of the config
        table = json.loads((out / 'predictions.json').read_text())
        assert [row['image'] for row in table['unreadable']] == [cut]
        names = [str(images / name) for name in ('a/1.jpg', 'b/1.jpg', 'b/2.jpg')]
        assert [row['image'] for row in table['predictions']] == names
        drawn = {row['drawn'] for row in table['predictions'] if 'drawn' in row}
        assert len(drawn) == (0 if '--no-vis' in flags else 3)
        for name in drawn:
            assert min(read_image(out / name).shape[:2]) == 320, 'small images are enlarged'
        for row in table['predictions']:
            assert (row['height'], row['width'], 3) == read_image(row['image']).shape
        return table['predictions']

    return run


OTHER_CLASSES = """
model['head'].update(num_classes=5)
test_dataloader['dataset']['pipeline'][1] = dict(type='ResizeEdge', scale=48)
"""


def test_classes(tiny_config, weights, predicted, images):
    """The 1000 names of ImageNet say nothing about a net of five classes.

    A second call does not predict its own results. A batch has images of one shape.
    """
    config = tiny_config('cls', OTHER_CLASSES)
    checkpoint = weights(config)
    wide = images / 'b' / '2.jpg'
    cv2.imwrite(str(wide), cv2.imread(str(wide))[:70])
    rows = predicted(config, checkpoint)
    for row in rows:
        scores = [best['score'] for best in row['top']]
        assert scores == sorted(scores, reverse=True)
        assert {best['category'] for best in row['top']} == {f'class {n}' for n in range(5)}
    batches = predicted(config, checkpoint, '--no-vis', '--batch-size', '3')
    for row, other in zip(rows, batches, strict=True):
        for best, same in zip(row['top'], other['top'], strict=True):
            assert best['score'] == pytest.approx(same['score'], abs=2e-5)


def test_boxes(tiny_config, weights, predicted):
    """Batches change nothing."""
    from mmdet.datasets import CocoDataset

    config = tiny_config('det', "model['test_cfg'].update(max_per_img=9)\n")
    checkpoint = weights(config)
    rows = predicted(config, checkpoint, '--score-thr', '0')
    batch = predicted(config, checkpoint, '--score-thr', '0', '--batch-size', '3', '--no-vis')
    for row, other in zip(rows, batch, strict=True):
        assert len(row['boxes']) == len(other['boxes']) == 9
        for box, same in zip(row['boxes'], other['boxes'], strict=True):
            x, y, width, height = box['bbox']
            assert 0 <= x <= x + width <= 96.01
            assert 0 <= y <= y + height <= 96.01
            assert box['category'] == CocoDataset.METAINFO['classes'][box['label']]
            assert box['score'] == pytest.approx(same['score'], abs=2e-5)


def test_label_maps(tiny_config, weights, predicted, images):
    """A net that was trained on other classes than the config's data knows their names."""
    config = tiny_config('seg')
    checkpoint = weights(config, classes=tuple(f'thing {i}' for i in range(21)), palette=None)
    for row in predicted(config, checkpoint):
        mask = cv2.imread(str(images / 'out' / row['mask']), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (96, 96)
        labels, counts = np.unique(mask, return_counts=True)
        expected = dict(zip([f'thing {label}' for label in labels], counts, strict=True))
        assert row['pixels'] == expected


@pytest.fixture
def call(tiny_config, weights, tool, images, capsys):
    """Predict the whole images with a classifier: exit code, last lines and content of the file."""
    (images / 'a' / 'cut.jpg').unlink()
    config = tiny_config('cls')
    checkpoint = weights(config)

    def run(code, *flags):
        capsys.readouterr()
        out = images / 'out'
        assert tool('predict', config, checkpoint, images, '--out-dir', out, *flags) == code
        said = capsys.readouterr()
        return said.out + said.err, json.loads((out / 'predictions.json').read_text())

    return run


def test_one_image_costs_no_other(call, images, monkeypatch):
    """One cannot be predicted, alone or in a batch, one cannot be drawn; a second call is whole."""
    monkeypatch.setattr(
        predict,
        'save_image',
        lambda image, path, write=save_image: (
            write(image, path)
            if path.name != '2.jpg'
            else write(image, images / 'notes.txt' / 'x.jpg')
        ),
    )
    step, bad = ImageClassifier.test_step, str(images / 'b' / '1.jpg')

    def fails(self, data):
        if any(sample.img_path == bad for sample in data['data_samples']):
            raise RuntimeError('too small')
        return step(self, data)

    monkeypatch.setattr(ImageClassifier, 'test_step', fails)
    said, table = call(0, '--batch-size', 3)
    assert [row['image'] for row in table['predictions']] == [
        str(images / name) for name in ('a/1.jpg', 'b/2.jpg')
    ]
    reason = f"image '{bad}': RuntimeError: too small"
    assert table['unreadable'] == [dict(image=bad, reason=reason)]
    assert [row['image'] for row in table['undrawn']] == [str(images / 'b' / '2.jpg')]
    assert ['drawn' in row for row in table['predictions']] == [True, False]
    assert f'1 images could not be read or predicted:\n  {reason}\n' in said
    assert '1 images could not be drawn or written:\n  ' in said
    # The same error for all images is not the fault of an image.
    monkeypatch.setattr(ImageClassifier, 'test_step', Mock(side_effect=RuntimeError('no model')))
    with pytest.raises(RuntimeError, match='no model'):
        call(1)
    assert json.loads((images / 'out' / 'predictions.json').read_text()) == table


def test_a_fault_of_all_images_after_some(tmp_path):
    """A GPU that fails in the middle of a run fails for all images that follow."""
    faults, broken = predict._Faults(99), RuntimeError('CUDA error')
    for _ in range(19):
        faults.left_out(tmp_path, broken)
    faults.predicted()
    for _ in range(19):
        faults.left_out(tmp_path, broken)
    with pytest.raises(RuntimeError, match='CUDA error'):
        faults.left_out(tmp_path, broken)


@pytest.mark.parametrize('interrupted', [True, False])
def test_a_run_that_ends_early(interrupted, call, monkeypatch):
    """By Ctrl-C or a full disk in the second image: one line, and the first image is in the file."""
    line, names = (
        "the disk is full; .*; '.*predictions.json' has the predictions of 1 of 3 images$",
        [],
    )

    def saved(image, path):
        names.append(path)
        with monkeypatch.context() as patch:
            if len(names) == 2:
                error = KeyboardInterrupt if interrupted else OSError(errno.ENOSPC, 'full')
                patch.setattr(os, 'fsync', Mock(side_effect=error))
            return save_image(image, path)

    monkeypatch.setattr(predict, 'save_image', saved)
    said, table = call(130 if interrupted else 2)
    assert re.search('interrupted' if interrupted else line, said.splitlines()[-1])
    assert len(table['predictions']) == 1
    assert table['unfinished']
    _, table = call(0)
    assert len(table['predictions']) == 3
    assert 'unfinished' not in table


def test_predictions_that_are_no_numbers(call, monkeypatch):
    """JSON has no NaN."""
    step = ImageClassifier.test_step

    def spoiled(self, data):
        samples = step(self, data)
        if samples[0].img_path.endswith('a/1.jpg'):
            samples[0].pred_score[0] = torch.nan
        return samples

    monkeypatch.setattr(ImageClassifier, 'test_step', spoiled)
    _, table = call(0)
    assert len(table['predictions']) == 2
    assert 'predicts NaN or Inf' in table['unreadable'][0]['reason']


def test_bad_arguments(tiny_config, weights, images, refused):
    config = tiny_config('cls')
    checkpoint = weights(config)
    (images / 'empty').mkdir()

    def error(name, *flags, checkpoint=checkpoint):
        flags = ('--out-dir', images / 'out', *flags)
        return refused('predict', config, checkpoint, images / name, *flags)

    assert "gone.jpg': no such file or folder" in error('gone.jpg')
    assert 'the pattern matches no image' in error('*.webp')
    assert 'the folder has no images' in error('empty')
    assert 'none of the 1 images could be read' in error('notes.txt')
    assert '--score-thr: got 2.0' in error('a', '--score-thr', '2')
    assert '--batch-size: got 0' in error('a', '--batch-size', '0')
    assert '--out-dir' in error('a', '--out-dir', images / 'notes.txt' / 'out')
    other = weights(tiny_config('seg'))
    assert str(other) in error('a', checkpoint=other)
