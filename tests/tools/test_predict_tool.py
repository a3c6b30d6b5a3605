"""tools/predict.py on the three tasks."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mobileone_mm.data.loading import read_image


@pytest.fixture
def weights(tmp_path, fresh_mmengine):
    """Random weights for a config, as a plain state dict or with the classes' names in it."""

    def write(config, **meta):
        cfg = Config.fromfile(config)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            torch.manual_seed(0)
            model = MODELS.build(cfg.model)
            model.init_weights()
        path = tmp_path / 'weights.pth'
        content = {'state_dict': model.state_dict(), 'meta': {'dataset_meta': meta}}
        torch.save(content if meta else model.state_dict(), path)
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


def read(out):
    return json.loads((out / 'predictions.json').read_text())


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_predict(task, tiny_config, weights, images, tool, tmp_path, capsys):
    config = tiny_config(task)
    checkpoint, out = weights(config), tmp_path / 'out'
    capsys.readouterr()
    assert tool('predict', config, checkpoint, images, '--out-dir', out, '--score-thr', '0') == 0
    said = capsys.readouterr().out
    assert '3 images predicted' in said
    assert '1 images could not be read' in said
    assert str(images / 'a' / 'cut.jpg') in said.splitlines()[-1]

    table = read(out)
    assert [row['image'] for row in table['predictions']] == [
        str(images / name) for name in ('a/1.jpg', 'b/1.jpg', 'b/2.jpg')
    ]
    assert [row['image'] for row in table['unreadable']] == [str(images / 'a' / 'cut.jpg')]
    drawn = [out / row['drawn'] for row in table['predictions']]
    assert len(set(drawn)) == 3
    for row, file in zip(table['predictions'], drawn, strict=True):
        assert (row['width'], row['height']) == (96, 96)
        image = read_image(file)
        assert image.shape == (320, 320, 3), 'small images are enlarged'
        check_record(task, row, out)


def check_record(task, row, out):
    if task == 'cls':
        scores = [best['score'] for best in row['top']]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
    elif task == 'det':
        assert row['boxes']
        for box in row['boxes']:
            x, y, width, height = box['bbox']
            assert 0 <= x <= x + width <= 96.01
            assert 0 <= y <= y + height <= 96.01
            assert box['category'] != 'class'
    else:
        mask = cv2.imread(str(out / row['mask']), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (96, 96)
        assert sum(row['pixels'].values()) == mask.size
        assert len(row['pixels']) == len(np.unique(mask))


def test_batches_change_nothing(tiny_config, weights, images, tool, tmp_path):
    config = tiny_config('det')
    checkpoint = weights(config)
    one, three = tmp_path / 'one', tmp_path / 'three'
    run = ('predict', config, checkpoint, images, '--no-vis', '--score-thr', '0.005')
    assert tool(*run, '--out-dir', one) == 0
    assert tool(*run, '--out-dir', three, '--batch-size', '3') == 0
    for a, b in zip(read(one)['predictions'], read(three)['predictions'], strict=True):
        assert a['image'] == b['image']
        assert len(a['boxes']) == len(b['boxes']) > 0
        for left, right in zip(a['boxes'], b['boxes'], strict=True):
            assert left['score'] == pytest.approx(right['score'], abs=2e-5)
    assert not (one / 'vis').exists()


def test_names_of_the_checkpoint(tiny_config, weights, images, tool, tmp_path):
    """A net that was trained on other classes than the config's data knows their names."""
    config = tiny_config('seg')
    checkpoint = weights(config, classes=tuple(f'thing {i}' for i in range(21)), palette=None)
    out = tmp_path / 'out'
    assert tool('predict', config, checkpoint, images / 'b', '--out-dir', out) == 0
    for row in read(out)['predictions']:
        assert all(name.startswith('thing ') for name in row['pixels'])


def test_names_that_are_not_the_model_s(tiny_config, weights, images, tool, tmp_path):
    """The 1000 names of ImageNet say nothing about a net of five classes."""
    config = tiny_config('cls', "model['head'].update(num_classes=5)\n")
    out = tmp_path / 'out'
    assert tool('predict', config, weights(config), images / 'b', '--out-dir', out) == 0
    names = {best['category'] for row in read(out)['predictions'] for best in row['top']}
    assert names == {f'class {number}' for number in range(5)}


def test_second_call_does_not_predict_its_own_results(tiny_config, weights, images, tool, tmp_path):
    config = tiny_config('cls')
    checkpoint = weights(config)
    for _ in range(2):
        out = images / 'out'
        assert tool('predict', config, checkpoint, images, '--out-dir', out) == 0
        assert len(read(out)['predictions']) == 3


@pytest.mark.parametrize(
    ('inputs', 'flags', 'said'),
    [
        (['gone.jpg'], [], "INPUT 'gone.jpg': no such file or folder"),
        (['*.webp'], [], 'the pattern matches no image'),
        (['empty'], [], 'the folder has no images'),
        (['notes.txt'], [], 'none of the 1 images could be read'),
        (['a'], ['--score-thr', '2'], '--score-thr: got 2.0'),
        (['a'], ['--batch-size', '0'], '--batch-size: got 0'),
        (['a'], ['--out-dir', 'notes.txt/out'], '--out-dir'),
    ],
)
def test_bad_arguments(
    inputs, flags, said, tiny_config, weights, images, tool, capsys, monkeypatch
):
    config = tiny_config('cls')
    checkpoint = weights(config)
    monkeypatch.chdir(images)
    (images / 'empty').mkdir()
    capsys.readouterr()
    assert tool('predict', config, checkpoint, *inputs, '--out-dir', 'out', *flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(images.rglob('predictions.json'))


def test_checkpoint_of_another_task(tiny_config, weights, images, tool, tmp_path, capsys):
    checkpoint = weights(tiny_config('cls'))
    capsys.readouterr()
    out = tmp_path / 'out'
    assert tool('predict', tiny_config('seg'), checkpoint, images, '--out-dir', out) == 2
    assert str(checkpoint) in capsys.readouterr().err
    assert not out.exists()
