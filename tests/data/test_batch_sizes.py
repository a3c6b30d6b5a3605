"""Images of different sizes that cannot form a batch: one line before the run."""

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mobileone_mm.data.checks.batch_sizes import check_batch
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.data.datasets import datasets_of
from mobileone_mm.errors import InputError
from mobileone_mm.faults import user_fault

LOAD = dict(type='mobileone_mm.LoadImage', on_error='skip')
EDGE, SQUARE = dict(type='ResizeEdge', scale=32), dict(type='Resize', scale=32)
CROP = dict(type='CenterCrop', crop_size=32)


@pytest.fixture
def images(tmp_path, fresh_mmengine):
    """Write images of these sizes, and a damaged one, into a class folder; return the data root."""

    def write(*sizes):
        (tmp_path / 'images' / 'cat').mkdir(parents=True)
        for index, size in enumerate(sizes):
            Image.new('RGB', size).save(tmp_path / 'images' / 'cat' / f'{index}.jpg')
        (tmp_path / 'images' / 'cat' / 'broken.jpg').write_bytes(b'no image')
        return tmp_path

    return write


def check(loader, dataset, scope, batch_size=2):
    init_default_scope(scope)
    settings = dict(batch_size=batch_size, dataset=dataset)
    if scope == 'mmpretrain':
        settings['collate_fn'] = dict(type='default_collate')
    cfg = Config({loader: settings})
    for found in datasets_of(cfg, loader):
        check_batch(cfg, found)


def classes(root, *steps, **more):
    dataset = dict(type='CustomDataset', data_root=str(root), data_prefix='images')
    return {**dataset, 'pipeline': [LOAD, *steps, dict(type='PackInputs')], **more}


@pytest.mark.parametrize('loader', ['train_dataloader', 'val_dataloader'])
def test_classifiers(loader, images):
    root = images((40, 60), (60, 40), (40, 40))
    (root / 'list.txt').write_text('cat/0.jpg 0\ncat/1.jpg 0\n')
    line = rf"^{loader}.batch_size: got 2, .*becomes \d+ x \d+ pixels, '.*{loader}.dataset.pipeline"
    for listed in ({}, dict(ann_file='list.txt', data_prefix='images')):
        with pytest.raises(InputError, match=line):
            check(loader, classes(root, EDGE, **listed), 'mmpretrain')
        check(loader, classes(root, EDGE, **listed), 'mmpretrain', batch_size=1)
        for steps in ([EDGE, CROP], [SQUARE]):
            check(loader, classes(root, *steps, **listed), 'mmpretrain')
    check(loader, classes(root, dict(type='NoSuch'), EDGE), 'mmpretrain')  # the run reports it


def test_images_of_one_size(images):
    check('val_dataloader', classes(images((60, 40), (60, 40)), EDGE), 'mmpretrain')


def test_images_that_pillow_refuses_are_left_to_the_run(images, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    check('val_dataloader', classes(images((60, 40), (40, 60)), EDGE), 'mmpretrain')


def masks(root, keep_ratio):
    steps = [dict(type='Resize', scale=(64, 32), keep_ratio=keep_ratio), dict(type='PackSegInputs')]
    prefix = dict(img_path='images')
    dataset = dict(type='BaseSegDataset', data_root=str(root), data_prefix=prefix)
    return {**dataset, 'metainfo': dict(classes=('a', 'b')), 'pipeline': [LOAD, *steps]}


def test_segmentors(images):
    pytest.importorskip('mmseg')
    root = images((40, 60), (60, 40))
    for name in ('val_dataloader', 'test_dataloader'):
        with pytest.raises(InputError, match=f'^{name}.batch_size: got 2, but the pipeline'):
            check(name, masks(root, True), 'mmseg')
        check(name, masks(root, True), 'mmseg', batch_size=1)
        check(name, masks(root, False), 'mmseg')
    check('train_dataloader', masks(root, True), 'mmseg')  # the preprocessor pads


def test_check_of_the_data(images):
    """The check of the loaders calls it."""
    root = images((40, 60), (60, 40))
    init_default_scope('mmpretrain')
    settings = dict(type='default_collate')
    loader = dict(batch_size=2, collate_fn=settings, dataset=classes(root, EDGE))
    with pytest.raises(InputError, match='different sizes'):
        check_data(Config(dict(val_dataloader=loader)), ['val_dataloader'])


def test_sizes_that_a_run_finds(images):
    """In a worker, from which torch gives a text alone, and in the process itself."""
    import torch
    from mmengine.dataset import default_collate
    from torch.utils.data import DataLoader

    different = [torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)]
    for workers in (0, 1):
        loader = DataLoader(different, 2, num_workers=workers, collate_fn=default_collate)
        with pytest.raises(RuntimeError) as caught:
            list(loader)
        assert 'the images of a batch have different sizes' in user_fault(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.stack(different)  # a fault of the program
    assert user_fault(caught.value) is None
