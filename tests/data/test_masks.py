"""Masks that cannot be read or do not fit."""

import numpy as np
import pytest
from PIL import Image

from mobileone_mm.data.masks import LoadSegAnnotations
from mobileone_mm.errors import InputError


@pytest.fixture
def results(tmp_path):
    def write(values, **more):
        path = tmp_path / 'mask.png'
        Image.fromarray(np.asarray(values, np.uint8)).save(path)
        image = dict(img=np.zeros((2, 3, 3), np.uint8), ori_shape=(2, 3), seg_fields=[])
        return {**image, 'seg_map_path': str(path), 'reduce_zero_label': False, **more}

    return write


def test_values_are_those_of_the_hosts_loader(results):
    from mmseg.datasets.transforms import LoadAnnotations

    values = [[0, 1, 2], [255, 3, 4]]
    ours = LoadSegAnnotations(num_classes=5).transform(results(values))
    theirs = LoadAnnotations().transform(results(values))
    assert ours['gt_seg_map'].tolist() == theirs['gt_seg_map'].tolist() == values
    assert ours['seg_fields'] == theirs['seg_fields'] == ['gt_seg_map']


def test_number_beyond_the_classes(results):
    line = r"mask\.png' has the class number 4, but the model has 4 classes:"
    with pytest.raises(InputError, match=line):
        LoadSegAnnotations(num_classes=4).transform(results([[0, 1, 2], [255, 3, 4]]))
    other = LoadSegAnnotations(num_classes=3, ignore_index=4)
    with pytest.raises(InputError, match='class number 255'):
        other.transform(results([[0, 1, 2], [255, 2, 4]]))


def test_numbers_counted_from_one(results):
    """ADE20K: 0 stands for no class, 1 to 150 for the classes."""
    loader = LoadSegAnnotations(num_classes=150)
    good = loader.transform(results([[0, 1, 2], [3, 149, 150]], reduce_zero_label=True))
    assert good['gt_seg_map'].tolist() == [[255, 0, 1], [2, 148, 149]]
    with pytest.raises(InputError, match='class number 151, but the model has 150 classes, from 1'):
        loader.transform(results([[0, 1, 2], [3, 4, 151]], reduce_zero_label=True))


def test_numbers_after_renumbering(results):
    """A dataset of which a model takes two classes: the others count for nothing."""
    loader = LoadSegAnnotations(num_classes=2)
    label_map = {0: 0, 7: 1, 9: 255}
    good = loader.transform(results([[0, 7, 9], [9, 9, 9]], label_map=label_map))
    assert good['gt_seg_map'].tolist() == [[0, 1, 255], [255, 255, 255]]
    with pytest.raises(InputError, match='class number 8'):
        loader.transform(results([[0, 7, 8], [9, 9, 9]], label_map=label_map))


@pytest.mark.parametrize('how', ['missing', 'text', 'cut', 'empty'])
def test_unreadable(how, results, tmp_path):
    sample = results(np.random.default_rng(0).integers(0, 2, (2, 3)))
    path = tmp_path / 'mask.png'
    if how == 'missing':
        path.unlink()
    else:
        path.write_bytes({'text': b'no mask', 'cut': path.read_bytes()[:45], 'empty': b''}[how])
    with pytest.raises(InputError, match=r"mask '.*mask\.png' cannot be read"):
        LoadSegAnnotations(on_error='raise').transform(dict(sample))
    assert LoadSegAnnotations(on_error='skip').transform(dict(sample)) is None
    blank = LoadSegAnnotations(on_error='ignore').transform({**sample, 'seg_fields': []})
    assert blank['gt_seg_map'].tolist() == [[255] * 3] * 2
    assert blank['seg_fields'] == ['gt_seg_map']
    with pytest.raises(ValueError, match="'blank'; expected one of skip, ignore, raise"):
        LoadSegAnnotations(on_error='blank')
