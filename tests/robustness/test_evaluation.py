"""Pipeline, counting and records: images whose colour says the class go through them."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader

from mobileone_mm.errors import InputError
from mobileone_mm.robustness.corruptions import corrupt, generator
from mobileone_mm.robustness.digital import jpeg
from mobileone_mm.robustness.pipeline import EvaluatedImages, SplitPipeline, count_correct
from mobileone_mm.robustness.records import Counts, Records
from mobileone_mm.robustness.report import plot, summarise, table
from mobileone_mm.robustness.sets import Evaluation, Images, read_set

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackInputs')
RESIZE = dict(type='ResizeEdge', scale=40, edge='short', backend='pillow')
CROP = dict(type='CenterCrop', crop_size=32)


class ReadsColour(nn.Module):
    """Gives the class of the colour a score of 5, and the class after it 9.

    So the first prediction is wrong and the second right, but where the class after it is left out.
    """

    def __init__(self, classes=1000):
        super().__init__()
        self.classes = classes

    def data_preprocessor(self, batch, training):
        return {**batch, 'inputs': torch.stack(list(batch['inputs']))}

    def forward(self, inputs, mode):
        assert mode == 'tensor'
        middle = inputs[:, :, inputs.shape[2] // 2, inputs.shape[3] // 2].long() // 8
        labels = middle[:, 2] * 32 + middle[:, 1]  # BGR
        right, after = (one_hot((labels + k) % self.classes, self.classes) for k in (0, 1))
        return 5.0 * right + 9.0 * after


@pytest.fixture
def pipeline(fresh_mmengine):
    DefaultScope.get_instance('robustness', scope_name='mmpretrain')
    return SplitPipeline([LOAD, RESIZE, CROP, PACK])


@pytest.fixture
def count(pipeline, paint, tmp_path):
    """Count the hits of a model on a set of these folders, with the set's limit or another one."""

    def counted(key, labels, model, limit=None, classes=1000):
        images = read_set(key, paint(tmp_path, labels))
        loader = DataLoader(EvaluatedImages(images, pipeline), 7, collate_fn=pseudo_collate)
        return count_correct(model, loader, images.limit if limit is None else limit, classes)

    return counted


def test_predictions_are_limited_to_the_classes_of_the_set(count, every_fifth):
    labels = list(every_fifth.values())
    assert count('a', every_fifth, ReadsColour()) == (200, 200)
    assert count('a', every_fifth, ReadsColour(), range(1000)) == (0, 200)
    assert count('a', every_fifth, ReadsColour(), [label + 1 for label in labels]) == (0, 0)


def test_models_that_give_no_scores(count):
    with pytest.raises(InputError, match='gives 7 scores; expected 1000'):
        count('v2', {'3': 3}, ReadsColour(7))
    features = ReadsColour()
    features.forward = lambda inputs, mode: (inputs,)
    with pytest.raises(InputError, match='expected an image classifier'):
        count('v2', {'3': 3}, features, classes=None)
    overflows = ReadsColour()
    overflows.forward = lambda inputs, mode: torch.full((len(inputs), 1000), torch.nan)
    with pytest.raises(InputError, match='predicts NaN or Inf: its weights overflow'):
        count('v2', {'3': 3}, overflows)


@pytest.fixture
def textured(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for name, shape in (('small', (32, 32)), ('wide', (60, 100))):
        files.append(str(tmp_path / f'{name}.png'))
        cv2.imwrite(files[-1], rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
    return Images(tuple(files), (1, 2), ('a/small.png', 'b/wide.png'))


def pixels(sample):
    return sample['inputs'].permute(1, 2, 0).numpy()


def test_corruption_stands_between_crop_and_packing(pipeline, textured):
    """On RGB, with the random numbers of the image's name, then stored as JPEG."""
    clean = EvaluatedImages(textured, pipeline)
    found = EvaluatedImages(textured, pipeline, corruption=('snow', 2, 5))
    for index, name in enumerate(textured.names):
        rgb = np.ascontiguousarray(pixels(clean[index])[..., ::-1])
        assert rgb.shape == (32, 32, 3)
        expected = jpeg(corrupt(rgb, 'snow', 2, generator(5, 'snow', 2, name)))[..., ::-1]
        assert np.array_equal(pixels(found[index]), expected)
        assert int(found[index]['data_samples'].gt_label) == textured.labels[index]


def test_stored_crops_are_not_cropped_again(pipeline, textured):
    dataset = EvaluatedImages(textured, pipeline, stored=True)
    original = cv2.imread(textured.files[0])
    assert np.array_equal(pixels(dataset[0]), original)
    assert pixels(dataset[1]).shape == (32, 32, 3)
    assert not np.array_equal(pixels(EvaluatedImages(textured, pipeline)[0]), original)


def test_sizes_of_pipelines(pipeline):
    with pytest.raises(InputError, match='output size depends on the image'):
        SplitPipeline([LOAD, dict(type='ResizeEdge', scale=40), PACK])
    assert SplitPipeline([LOAD, dict(type='Resize', scale=(20, 30)), PACK]).size == (30, 20)
    assert SplitPipeline([LOAD, PACK]).size is None


def test_records_of_several_models_and_other_files(tmp_path):
    path = tmp_path / 'sub' / 'results.json'
    Records(path, 'model', {'seed': 0}).put('clean', 'key', Counts(10, 5, 8, 3))
    other = Records(path, 'another model', {})
    assert other.get('clean', 'key') is None
    other.put('clean', 'key', Counts(10, 1, 1, 3))
    other.write({'sets': {}})
    assert json.loads(path.read_text())['models']['another model']['summary'] == {'sets': {}}
    assert [p.name for p in path.parent.iterdir()] == ['results.json']
    fresh = Records(path, 'another model', {}, fresh=True)
    assert fresh.get('clean', 'key') is None
    fresh.write()
    again = Records(path, 'model', {})
    assert again.get('clean', 'key') == Counts(10, 5, 8, 3)
    assert again.get('clean', 'other images') is None
    for content in ('{"a": 1}', 'text', '[1]'):
        path.write_text(content)
        with pytest.raises(InputError, match='is not a file of this tool'):
            Records(path, 'model', {})


def test_table_and_plot(tmp_path):
    counts = {Evaluation('clean'): Counts(1000, 800, 900, 1000)}
    counts[Evaluation('a', folder=tmp_path)] = Counts(50, 5, 20, 200)
    for severity in range(1, 6):
        right = 800 - 100 * severity
        counts[Evaluation('generated', 'fog', severity)] = Counts(1000, right, 900, 1000)
    counts[Evaluation('generated', 'snow', 3)] = Counts(996, 249, 300, 1000)
    summary = summarise(counts, imagenet=True)
    text = table(summary)
    assert "| config's test set | 1000 | 1000 | 80.00 | 90.00 |" in text
    assert '| ImageNet-A | 200 | 50 | 10.00 | 40.00 |' in text
    relative = 100 * (0.5 - 0.2) / (0.819324 - 0.43478)
    fog = '| fog | 30.0 | 40.0 | 50.0 | 60.0 | 70.0 | 50.0 |'
    assert f'{fog} 81.9 | {50 / 0.819324:.1f} | {relative:.1f} |' in text
    assert '| snow |  |  | 75.0 |  |  | 75.0 |  |  |  |' in text
    assert 'generated corruptions: 996 images of 1000 classes for each' in text
    assert 'mCE' not in text
    plot(summary, tmp_path / 'plot.png')
    image = cv2.imread(str(tmp_path / 'plot.png'))
    assert image.shape[1] == 1600
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    assert f'{fog}  |  |  |' in table(summarise(counts, imagenet=False))
