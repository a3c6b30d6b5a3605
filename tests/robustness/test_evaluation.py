"""Pipeline, counting and records: images whose colour says the class go through them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mobileone_mm.errors import InputError
from mobileone_mm.robustness.corruptions import as_stored, corrupt, generator
from mobileone_mm.robustness.pipeline import (
    Corruption,
    EvaluatedImages,
    TestPipeline,
    count_correct,
    keep_crops,
)
from mobileone_mm.robustness.records import Counts, Records, digest, model_digest
from mobileone_mm.robustness.report import plot, summarise, table
from mobileone_mm.robustness.sets import Images, read_set

STEPS = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=40, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]


@pytest.fixture
def pipeline(fresh_mmengine):
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance('robustness', scope_name='mmpretrain')
    return TestPipeline(STEPS)


def loader(dataset):
    from mmengine.dataset import pseudo_collate

    return DataLoader(dataset, batch_size=7, collate_fn=pseudo_collate)


def test_predictions_are_limited_to_the_classes_of_the_set(
    pipeline, paint, tmp_path, every_fifth, reads_colour
):
    images = read_set('a', paint(tmp_path, every_fifth))
    batches = loader(EvaluatedImages(images, pipeline))
    assert count_correct(reads_colour(), batches, images.limit, 1000) == (200, 200)
    assert count_correct(reads_colour(), batches, None, 1000) == (0, 200)
    wrong = tuple((label + 1) % 1000 for label in images.limit)
    assert count_correct(reads_colour(), batches, wrong, 1000) == (0, 0)


def test_labels_of_v2(pipeline, paint, tmp_path, reads_colour):
    labels = {str(label): label for label in (0, 1, 2, 9, 10, 99, 100, 101, 998)}
    images = read_set('v2', paint(tmp_path, labels))
    batches = loader(EvaluatedImages(images, pipeline))
    only_right = tuple(labels.values())
    right = [label for label in only_right if label + 1 not in only_right]
    assert count_correct(reads_colour(), batches, None, 1000) == (0, 9)
    assert count_correct(reads_colour(), batches, only_right, 1000) == (len(right), 9)


def test_models_that_give_no_scores(pipeline, paint, tmp_path, reads_colour):
    images = read_set('v2', paint(tmp_path, {'3': 3}))
    batches = loader(EvaluatedImages(images, pipeline))
    with pytest.raises(InputError, match='gives 7 scores; expected 1000'):
        count_correct(reads_colour(7), batches, None, 1000)

    class Features(reads_colour):
        def forward(self, inputs, mode):
            return (inputs,)

    with pytest.raises(InputError, match='expected an image classifier'):
        count_correct(Features(), batches)


@pytest.fixture
def textured(tmp_path):
    """One image of 32 px, and one of 100 x 60."""
    rng = np.random.default_rng(0)
    files = []
    for name, shape in (('small', (32, 32)), ('wide', (60, 100))):
        files.append(str(tmp_path / f'{name}.png'))
        cv2.imwrite(files[-1], rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
    return Images(tuple(files), (1, 2), ('a/small.png', 'b/wide.png'))


def test_corruption_stands_between_crop_and_packing(pipeline, textured):
    """On RGB, with the random numbers of the image's name, then stored as JPEG."""
    clean = EvaluatedImages(textured, pipeline)
    found = EvaluatedImages(textured, pipeline, Corruption('snow', 2, 5))
    for index, name in enumerate(textured.names):
        crop = clean[index]['inputs'].permute(1, 2, 0).numpy()
        assert crop.shape == (32, 32, 3)
        rgb = np.ascontiguousarray(crop[..., ::-1])
        expected = as_stored(corrupt(rgb, 'snow', 2, generator(5, 'snow', 2, name)))
        assert np.array_equal(found[index]['inputs'].permute(1, 2, 0).numpy(), expected[..., ::-1])
        assert int(found[index]['data_samples'].gt_label) == textured.labels[index]
    kept = EvaluatedImages(
        textured, pipeline, Corruption('snow', 2, 5), crops=keep_crops(textured, pipeline)
    )
    for index in range(2):
        for _ in range(2):  # the crop that is kept stays as it is
            assert torch.equal(kept[index]['inputs'], found[index]['inputs'])


def test_stored_crops_are_not_cropped_again(pipeline, textured):
    dataset = EvaluatedImages(textured, pipeline, stored=True)
    original = cv2.imread(textured.files[0])
    assert np.array_equal(dataset[0]['inputs'].permute(1, 2, 0).numpy(), original)
    assert dataset[1]['inputs'].shape == (3, 32, 32)
    enlarged = EvaluatedImages(textured, pipeline)[0]['inputs'].permute(1, 2, 0).numpy()
    assert not np.array_equal(enlarged, original)


def test_pipelines_that_do_not_serve(fresh_mmengine):
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance('robustness', scope_name='mmpretrain')
    load, pack = STEPS[0], STEPS[-1]
    with pytest.raises(InputError, match='output size depends on the image'):
        TestPipeline([load, dict(type='ResizeEdge', scale=40), pack])
    with pytest.raises(InputError, match="has no 'pipeline'"):
        TestPipeline([])
    assert TestPipeline([load, pack]).size is None
    assert TestPipeline([load, dict(type='Resize', scale=(20, 30)), pack]).size == (30, 20)


def test_records_of_several_models_and_other_files(tmp_path):
    path = tmp_path / 'sub' / 'results.json'
    counts = Counts(10, 5, 8, 3)
    records = Records(path, 'model', {'seed': 0})
    assert records.get('clean', 'key') is None
    records.put('clean', 'key', counts)
    records.write({'sets': {}})
    other = Records(path, 'another model', {})
    assert other.get('clean', 'key') is None
    other.put('clean', 'key', Counts(10, 1, 1, 3))
    again = Records(path, 'model', {})
    assert again.get('clean', 'key') == counts
    assert again.get('clean', 'other images') is None
    models = json.loads(path.read_text())['models']
    assert models['model']['summary'] == {'sets': {}}
    assert [p.name for p in path.parent.iterdir()] == ['results.json']
    fresh = Records(path, 'model', {}, fresh=True)
    assert fresh.get('clean', 'key') is None
    fresh.write()
    assert Records(path, 'another model', {}).get('clean', 'key').top1 == 1
    for content in ('{"a": 1}', 'text', '[1]'):
        path.write_text(content)
        with pytest.raises(InputError, match='is not a file of this tool'):
            Records(path, 'model', {})


def test_digests():
    model = torch.nn.Conv2d(3, 4, 1)
    before = model_digest(model)
    assert before == model_digest(model)
    with torch.no_grad():
        model.bias[0] += 1e-6
    assert model_digest(model) != before
    assert digest('a', 1) == digest('a', 1) != digest('a', 2)


def test_table_and_plot(tmp_path):
    counts = {('clean', '', 0): Counts(1000, 800, 900, 1000), ('a', '', 0): Counts(50, 5, 20, 200)}
    counts |= {('generated', 'fog', s): Counts(1000, 800 - 100 * s, 900, 1000) for s in range(1, 6)}
    counts |= {('generated', 'snow', 3): Counts(1000, 250, 300, 1000)}
    summary = summarise(counts, imagenet=True)
    text = table(summary)
    assert "| config's test set | 1000 | 1000 | 80.00 | 90.00 |" in text
    assert '| ImageNet-A | 200 | 50 | 10.00 | 40.00 |' in text
    relative = 100 * (0.5 - 0.2) / (0.819324 - 0.43478)
    line = '| fog | 30.0 | 40.0 | 50.0 | 60.0 | 70.0 | 50.0 | 81.9 | '
    line += f'{50 / 0.819324:.1f} | {relative:.1f} |'
    assert line in text
    assert '| snow |  |  | 75.0 |  |  | 75.0 |  |  |  |' in text
    assert 'mCE' not in text
    plot(summary, tmp_path / 'plot.png')
    image = cv2.imread(str(tmp_path / 'plot.png'))
    assert image.shape[1] == 1600
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    other = table(summarise(counts, imagenet=False))
    assert '| fog | 30.0 | 40.0 | 50.0 | 60.0 | 70.0 | 50.0 |  |  |  |' in other
