"""Masks that cannot be read or do not fit."""

import numpy as np
import pytest
from PIL import Image

from mobileone_mm.data.masks import LoadSegAnnotations
from mobileone_mm.errors import InputError


@pytest.fixture
def results(tmp_path):
    def write(values, name='mask.png', **more):
        path = tmp_path / name
        values = np.asarray(values)
        kind = np.uint8 if values.dtype == np.int64 else values.dtype
        Image.fromarray(values.astype(kind)).save(path)
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


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize(
    'label_map',
    [None, {0: 1, 1: 0, 254: 7, 255: 3}, {number: 255 - number for number in range(256)}],
)
def test_random_masks_are_those_of_the_hosts_loader(results, reduce_zero_label, label_map):
    from mmseg.datasets.transforms import LoadAnnotations

    values = np.random.default_rng(0).integers(0, 256, (2, 3 * 256), np.uint8)
    values[0, :256] = np.arange(256)
    settings = dict(
        ori_shape=values.shape, reduce_zero_label=reduce_zero_label, label_map=label_map
    )
    ours = LoadSegAnnotations().transform(results(values, **settings))['gt_seg_map']
    theirs = LoadAnnotations().transform(results(values, **settings))['gt_seg_map']
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.array_equal(ours, theirs)


VALUES = np.array([[0, 1, 2], [255, 3, 4]])


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('mask.png', VALUES.astype(np.uint16)),
        ('mask.tif', VALUES.astype(np.int32)),
        ('mask.tif', VALUES.astype(np.float32)),
        ('mask.png', VALUES % 2 == 1),  # 1 bit
    ],
)
def test_types_that_hold_class_numbers(name, values, results):
    mask = LoadSegAnnotations(num_classes=5).transform(results(values, name))['gt_seg_map']
    assert mask.dtype == np.uint8
    assert mask.tolist() == values.astype(int).tolist()


def test_palette(results, tmp_path):
    sample = results(VALUES)
    image = Image.fromarray(VALUES.astype(np.uint8), mode='P')
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / 'mask.png')
    assert LoadSegAnnotations().transform(sample)['gt_seg_map'].tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    ('name', 'value', 'kind', 'shown'),
    [
        ('mask.png', 257, np.uint16, '257'),  # 1 for mmseg
        ('mask.tif', 65536, np.int32, '65536'),
        ('mask.tif', -1, np.int32, '-1'),
        ('mask.tif', 0.5, np.float32, '0.5'),  # 0 for mmseg
        ('mask.tif', np.nan, np.float32, 'nan'),
    ],
)
def test_values_that_mmseg_would_change(name, value, kind, shown, results):
    sample = results(np.array([[0, 1, 2], [value, 1, 0]]).astype(kind), name)
    line = rf"mask '.*{name}' has the value {shown} \(type {np.dtype(kind)}\); expected integers"
    with pytest.raises(InputError, match=line):
        LoadSegAnnotations().transform(sample)
    if kind is not np.float32:
        good = LoadSegAnnotations(label_map={value: 255}).transform({**sample, 'seg_fields': []})
        assert good['gt_seg_map'].tolist() == [[0, 1, 2], [255, 1, 0]]


def test_numbers_renumbered_while_loading(results):
    """First those of the file, at once; then those of the dataset."""
    swap = LoadSegAnnotations(label_map={0: 1, 1: 0, '255': 2}, num_classes=3)
    assert swap.transform(results(VALUES % 2))['gt_seg_map'].tolist() == [[1, 0, 1], [0, 0, 1]]
    from_one = swap.transform(results([[0, 0, 1], [1, 255, 255]], reduce_zero_label=True))
    assert from_one['gt_seg_map'].tolist() == [[0, 0, 255], [255, 1, 1]]


@pytest.mark.parametrize(
    'label_map', [{255: 256}, {255: '1'}, {0.5: 1}, {'a': 1}, [255, 1], {1: True}]
)
def test_label_map_that_is_none(label_map):
    with pytest.raises(ValueError, match='^label_map: got .*expected a dict of integers'):
        LoadSegAnnotations(label_map=label_map)


def test_two_settings_of_zero(results):
    with pytest.raises(InputError, match='LoadAnnotations has True, its dataset False'):
        LoadSegAnnotations(reduce_zero_label=True).transform(results(VALUES))


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
    with pytest.raises(
        InputError, match=r'class number 3, .*\{3: CLASS\}.*reduce_zero_label=True of'
    ):
        LoadSegAnnotations(num_classes=3).transform(results([[0, 1, 2], [3, 2, 1]]))
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
    with pytest.raises(InputError, match='cannot be read'):  # OpenCV returns None
        LoadSegAnnotations(on_error='raise', imdecode_backend='cv2').transform(dict(sample))
    with pytest.raises(ValueError, match="'blank'; expected one of skip, ignore, raise"):
        LoadSegAnnotations(on_error='blank')
