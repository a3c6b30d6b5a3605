"""Masks have the numbers of the classes, or the run is refused, with the option that repairs them."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image

from mobileone_mm.data.checks import mask_numbers
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.errors import InputError
from mobileone_mm.runs.changes import Flags, broken_files

TRAIN, VAL = 'train_dataloader', 'val_dataloader'
REDUCED = dict(reduce_zero_label=True)
AS_ROAD, AS_CAR = (dict(step=dict(label_map=given)) for given in ({255: 1}, {9: 2}))
THREE = ('ground', 'road', 'car')


@pytest.fixture
def data(tmp_path, fresh_mmengine):
    """Write masks with the given numbers; return the config of a loader, as a run has it."""
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')

    def make(*masks, loader=TRAIN, classes=THREE, step=(), head=(), **more):
        folder = tmp_path / f'data{len(list(tmp_path.iterdir()))}'
        for name in ('images', 'masks'):
            (folder / name).mkdir(parents=True)
        for index, numbers in enumerate(masks):
            values = np.repeat(np.asarray(numbers), 2)[None]
            kind = np.uint8 if values.max() < 256 else np.uint16
            Image.fromarray(values.astype(kind)).save(folder / f'masks/{index:04}.png')
            Image.new('RGB', values.shape[::-1]).save(folder / f'images/{index:04}.jpg')
        dataset = dict(
            type='BaseSegDataset', data_root=str(folder), metainfo=dict(classes=classes),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', **dict(step)),
                      dict(type='PackSegInputs')],
        )  # fmt: skip
        head = {'num_classes': len(classes), **dict(head)}
        return finished({loader: dict(dataset={**dataset, **more})}, head)

    return make


def finished(loaders, head):
    cfg = Config(dict(default_scope='mmseg', model=dict(decode_head=head), **loaders))
    broken_files(cfg, Flags())
    return cfg


def check(cfg):
    (loader,) = (name for name in cfg if name.endswith('_dataloader'))
    return check_data(cfg, [loader])


@pytest.fixture
def warnings(data, capsys):
    """Check a config that must pass, and return the warnings."""

    def run(cfg):
        MMLogger.get_instance('of_masks', logger_name='of_masks')
        check(cfg)
        said = ''.join(capsys.readouterr())
        assert said.count('WARNING') <= 1
        return said

    return run


def test_table(data):
    (found,) = check(data([0, 0, 1], [255, 1, 2], [1, 2, 2]))
    assert found.counts == {'images': 3, 'masks read': 3}
    assert found.by_class == dict(ground=4, road=6, car=6)
    assert found.left_out == {'ignored': 2}
    (reduced,) = check(data([0, 1, 2], [255, 1, 3], reduce_zero_label=True))
    assert reduced.by_class == dict(ground=4, road=2, car=2)
    (renumbered,) = check(data([0, 7, 12], type='ADE20KDataset', classes=('bed ', 'wall'),
                               reduce_zero_label=False))  # fmt: skip
    assert renumbered.by_class == {'bed ': 2, 'wall': 2}
    (subset,) = check(data([0, 1], [2, 2], [1, 0], indices=[0, 2]))
    assert subset.counts['images'] == 2
    assert subset.by_class == dict(ground=4, road=4, car=0)
    assert 'masks read 2' in '\n'.join(subset.lines())


@pytest.mark.parametrize(
    ('masks', 'more', 'line', 'repair'),
    [
        ([[0, 255], [0, 0]], {}, "class 'ground' alone.* are 0, 255: .*1.label_map={255: 1}",
         dict(step=dict(label_map={255: 1}))),
        ([[1, 255]], {}, "'road' alone .*label_map={255: 0}", dict(step=dict(label_map={255: 0}))),
        ([[0, 1], [255, 1]], dict(reduce_zero_label=True), 'dataset.reduce_zero_label=False',
         dict(reduce_zero_label=False)),
        ([[0, 255]], dict(reduce_zero_label=True),
         'all pixels are ignored .*label_map={255: 1}; .*dataset.reduce_zero_label=False',
         dict(reduce_zero_label=False, step=dict(label_map={255: 1}))),
        ([[0, 0]], {}, "' are 0: check that these are the masks", None),
        ([[255, 255]], {}, 'all pixels are ignored .* are 255: check', None),
        ([[0, 255]], dict(loader='test_dataloader'), r'^test\S+: .*label_map={255: 1}', None),
        # a head of one channel
        ([[0, 255]], dict(classes=('crack',), head=dict(num_classes=1)),
         "'background' alone .*label_map={255: 1}", dict(step=dict(label_map={255: 1}))),
        ([[0, 255]], dict(classes=THREE[:2], head=dict(out_channels=1)), 'label_map={255: 1}',
         dict(step=dict(label_map={255: 1}))),
        # numbers beyond the classes
        ([[0, 1, 3]], {}, 'class number 3, but the model has 3 classes.*reduce_zero_label=True', None),
        ([[1, 2, 3]], {}, 'class number 3, but', dict(reduce_zero_label=True)),
        ([[0, 128]], {}, r'class number 128, .*label_map={128: CLASS}',
         dict(step=dict(label_map={128: 1}))),
        ([[0, 256]], {}, r'has the value 256 \(type uint16\)', dict(step=dict(label_map={256: 1}))),
    ],
)  # fmt: skip
def test_masks_of_one_class(masks, more, line, repair, data):
    loader = more.get('loader', TRAIN)
    with pytest.raises(InputError, match=line) as caught:
        check(data(*masks, **more))
    assert str(caught.value).startswith(f'{loader}.dataset: ')
    assert '\n' not in str(caught.value)
    if repair:
        check(data(*masks, **{**more, **repair}))


@pytest.mark.parametrize(
    ('trained', 'other', 'said'),
    [
        (([0, 255], AS_ROAD), ([0, 255, 1], {}), None),  # 255 may be ignored here
        (([0, 255], AS_ROAD), ([0, 1], {}), ''),
        (([0, 255], AS_ROAD), ([0, 255], AS_ROAD), ''),
        (([0, 1, 9], AS_CAR), ([0, 1, 9], {}), 'pipeline.1.label_map="{9: 2}"'),
        (([0, 1, 9], {}), ([0, 1, 9], AS_CAR), 'train_dataloader.*pipeline.1.label_map="{9: 2}"'),
        (
            ([1, 2, 3], REDUCED),
            ([1, 2, 3], {}),
            'val_dataloader.dataset.reduce_zero_label=True, or',
        ),
        (([1, 2], {}), ([1, 2], REDUCED), 'val_dataloader.dataset.reduce_zero_label=False, or'),
        (([1, 2, 3], REDUCED), ([0, 1, 2], {}), None),
    ],
)
def test_loaders_that_renumber_in_other_ways(trained, other, said, data, capsys):
    """The same numbers in the files are an error, else there is a warning (None)."""
    cfg = data(trained[0], head=dict(num_classes=None), **trained[1])
    loaders = [TRAIN, VAL]
    cfg[VAL] = data(other[0], head=dict(num_classes=None), loader=VAL, **other[1])[VAL]
    if said:
        with pytest.raises(InputError, match=f'is .*, but .*: if they mean the same as .*{said}'):
            check_data(cfg, loaders)
        return
    MMLogger.get_instance('of_loaders', logger_name='of_loaders')
    check_data(cfg, loaders)
    assert ('if they mean the same' in ''.join(capsys.readouterr())) == (said is None)


def test_numbers_that_the_training_does_not_have(data, capsys, monkeypatch):
    cfg = data([0, 1], head=dict(num_classes=None))
    cfg[VAL] = data([1, 2], head=dict(num_classes=None), loader=VAL)[VAL]
    MMLogger.get_instance('of_splits', logger_name='of_splits')
    said = "val_dataloader.dataset: its masks have pixels of 'car', the training masks none"
    check_data(cfg, [TRAIN, VAL])
    assert said in ''.join(capsys.readouterr())
    cfg[VAL] = data([0, 1], head=dict(num_classes=None), loader=VAL, classes=('a', 'b', 'c'))[VAL]
    check_data(cfg, [TRAIN, VAL])  # other names for the same numbers
    assert 'the training masks none' not in ''.join(capsys.readouterr())
    monkeypatch.setattr(mask_numbers, 'MASKS', 1)
    cfg[TRAIN] = data([0, 1], [0, 1], head=dict(num_classes=None))[TRAIN]
    check_data(cfg, [TRAIN, VAL])
    assert said not in ''.join(capsys.readouterr())


def test_renumbered(data):
    """A class list that is a part of the one of the dataset's class, and masks that follow the part."""
    settings = dict(type='ADE20KDataset', classes=('door', 'bed '), reduce_zero_label=False)
    with pytest.raises(InputError, match='those of ADE20KDataset; .*dataset.type=BaseSegDataset'):
        check(data([0, 1], **settings))
    check(data([0, 1], **{**settings, 'type': 'BaseSegDataset'}))
    with pytest.raises(InputError, match="ADE20KDataset has no 'ground'; .*type=BaseSegDataset"):
        check(data([0, 1], type='ADE20KDataset'))


def test_classes_that_never_occur(data, warnings, monkeypatch):
    said = "train_dataloader.dataset: 1 of 3 classes have no pixel in the 2 masks ('car')"
    assert said in warnings(data([0, 1], [1, 255]))
    assert 'if their numbers start at 1' in warnings(data([1, 2], [2, 255]))
    assert 'if their numbers start at 0' in warnings(data([0, 1, 2], reduce_zero_label=True))
    assert not warnings(data([0, 1], [1, 0], loader='val_dataloader'))
    assert not warnings(data([0, 1, 2]))
    monkeypatch.setattr(mask_numbers, 'MASKS', 2)  # a part proves nothing
    assert not warnings(data([0, 1], [1, 0], [1, 1]))


def test_background_alone_beside_other_data(data, warnings):
    """In a test, in another dataset of the loader, and in a part of the masks."""
    said = "the class 'ground' alone has pixels (masks read: 2)"
    assert said in warnings(data([0, 0], [0, 0], loader='test_dataloader'))
    parts = [data(*masks)[TRAIN].dataset for masks in ([[0, 0]], [[0, 1, 2]], [[0, 255]])]
    both = {TRAIN: dict(dataset=dict(type='ConcatDataset', datasets=parts[:2]))}
    assert not warnings(finished(both, dict(num_classes=3)))
    both[TRAIN]['dataset']['datasets'] = parts[1:]
    said = "datasets.1: the class 'ground' alone"
    assert said in warnings(finished(both, dict(num_classes=3)))


def test_rare_class_is_looked_for(data, warnings, monkeypatch):
    masks = [[0, 0]] * 20 + [[0, 1]] + [[0, 0]] * 20
    monkeypatch.setattr(mask_numbers, 'MASKS', 2)
    assert not warnings(data(*masks))
    monkeypatch.setattr(mask_numbers, 'LONGEST_SECONDS', -1)
    assert "'ground' alone has pixels (masks read: 1)" in warnings(data(*masks))


def test_masks_of_another_size(data, tmp_path):
    cfg = data([0, 1, 2], loader='val_dataloader')
    (image,) = tmp_path.rglob('*.jpg')
    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', (6, 1)).save(image, exif=exif)
    with pytest.raises(
        InputError, match='6 x 1 pixels, its image 1 x 6: the EXIF orientation 6 turns'
    ):
        check(cfg)
    cfg.val_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    check(cfg)
    Image.new('RGB', (6, 2)).save(image)
    with pytest.raises(
        InputError, match='^val.* its image 6 x 2: write the mask in the size of its'
    ):
        check(cfg)
    cfg.val_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromNDArray')  # no such file
    check(cfg)


def test_masks_that_cannot_be_read(data, tmp_path):
    cfg = data([0, 1, 2], [0, 1, 2])
    (first, second) = sorted(tmp_path.rglob('*.png'))
    first.write_bytes(b'no mask')
    assert check(cfg)[0].counts == {'images': 2, 'masks read': 1}
    second.write_bytes(b'')
    with pytest.raises(InputError, match="none of the masks can be read, such as '.*0000.png'"):
        check(cfg)
    first.unlink()
    second.unlink()
    cfg.train_dataloader.dataset.test_mode = True
    assert not check(cfg)


def test_pipeline_without_masks_or_with_a_loader_of_the_user(data):
    cfg = data([0, 0])
    del cfg.train_dataloader.dataset.pipeline[1]
    assert not check(cfg)
    assert not check(data([0, 0], step=dict(label_map=3)))  # the run reports it
