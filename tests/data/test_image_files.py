"""One table of suffixes: what the loader reads, what datasets and tools list, what they leave out."""

import io
import logging
import re
import tarfile
from collections import Counter

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from helpers import write_files
from mobileone_mm.data import image_files
from mobileone_mm.data.checks import folders
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.data.image_files import IMAGE_SUFFIXES, OtherFiles
from mobileone_mm.data.loading import read_image
from mobileone_mm.data.packed.packs import open_pack
from mobileone_mm.data.packed.shards import IMAGES
from mobileone_mm.data.packed.write import items_of_folder, write_pack
from mobileone_mm.errors import InputError
from mobileone_mm.inference.images import find_images
from mobileone_mm.runs import changes
from mobileone_mm.runs.changes import Flags

SIDE = ('notes.txt', 'a.JSON', 'Thumbs.db', 'desktop.ini', '.hidden.heic', '.DS_Store', 'README')


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """The warnings about files that are left out."""
    lines = []

    def log(text, _=None, level=logging.INFO):
        assert level == logging.WARNING
        assert '\n' not in text
        lines.append(text)

    for module in (image_files, folders):
        monkeypatch.setattr(module, 'print_log', log)
    return lines


@pytest.fixture
def scope(fresh_mmengine):
    init_default_scope('mmpretrain')


@pytest.mark.parametrize('suffix', IMAGE_SUFFIXES)
def test_the_loader_reads_every_suffix(suffix, tmp_path):
    areas = np.zeros((32, 48, 3), np.uint8)
    areas[:16, :24] = 255
    path = tmp_path / f'a{suffix.upper()}'
    Image.fromarray(areas).convert('1' if suffix == '.pbm' else 'RGB').save(
        path, Image.registered_extensions()[suffix]
    )
    assert np.abs(read_image(path).astype(int) - areas).mean() < 4
    assert suffix[1:] in IMAGES
    assert find_images([str(tmp_path)]) == [path]


def listed(dataset):
    init_default_scope('mmpretrain')
    built = DATASETS.build(dict(dataset, pipeline=[]))
    return sorted(built.get_data_info(i)['img_path'].rpartition('/')[2] for i in range(len(built)))


def make_folders(root, *names, classes=('ant', 'bee')):
    return write_files(root, {f'{kind}/{name}': 'x' for kind in classes for name in names})


def test_class_folders_train_and_pack_the_same_images(scope, said, tmp_path):
    """Training, packing and shards have all images; the other files are counted in one warning."""
    names = ('1.jpg', '2.webp', '3.TIFF', '4.jfif')
    root = make_folders(tmp_path / 'in', *names, '5.heic', '6.heic', '7.dng', '8', *SIDE)
    dataset = dict(type='CustomDataset', data_root=str(root))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset))))
    changes.image_suffixes(cfg, Flags())
    assert listed(cfg.train_dataloader.dataset.dataset) == sorted(names * 2)
    check_data(cfg, ('train_dataloader',))
    counts = '8 files are left out: 4 .heic, 2 without a suffix, 2 .dng; images end in .avif, .bmp'
    assert len(said) == 1
    assert said[0].startswith(f"train_dataloader.dataset.dataset: '{root}': {counts}")
    said.clear()
    items, classes = items_of_folder(root)
    assert (len(items), classes) == (8, ('ant', 'bee'))
    assert len(said) == 1
    assert said[0].startswith(f"SOURCE: '{root}': {counts}")
    write_pack(items, tmp_path / 'out', 'shards', classes)
    assert Counter(label for _, label in open_pack(tmp_path / 'out').samples()) == {0: 4, 1: 4}


def test_extensions_of_the_user_hold(scope, tmp_path):
    from mmpretrain.datasets import CustomDataset

    class Own(CustomDataset):
        def __init__(self, data_root):
            super().__init__(data_root=data_root)

    root = make_folders(tmp_path / 'in', '1.jpg', '2.webp')
    kept = dict(type='CustomDataset', data_root=str(root), extensions=('.webp',))
    others = (
        dict(type='CustomDataset', data_root=str(root), ann_file='list.txt'),
        dict(type='mobileone_mm.PackedDataset', data_root=str(root)),
        dict(type=Own, data_root=str(root)),  # has no such argument
        dict(type='CIFAR10'),
    )
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=kept),
            val_dataloader=dict(dataset=dict(type='ImageNet', data_root=str(root), split='val')),
            test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=list(others))),
        )
    )
    before = cfg.test_dataloader.to_dict()
    changes.image_suffixes(cfg, Flags())
    assert listed(cfg.train_dataloader.dataset) == ['2.webp', '2.webp']
    assert cfg.val_dataloader.dataset.extensions == list(IMAGE_SUFFIXES)
    assert cfg.test_dataloader.to_dict() == before


def test_usual_side_files_give_no_warning(scope, said, tmp_path):
    make_folders(tmp_path, '1.jpg', *SIDE)
    items_of_folder(tmp_path)
    find_images([str(tmp_path), f'{tmp_path}/*/*'])
    assert said == []


def test_images_without_a_class_folder(scope, said, tmp_path):
    make_folders(tmp_path, '1.jpg')
    write_files(tmp_path, {'2.jpg': '', '3.png': '', 'list.txt': ''})
    items_of_folder(tmp_path)
    assert said == [
        f"SOURCE: 2 images lie in '{tmp_path}' itself, and not in a class folder; they are left out."
    ]


@pytest.mark.parametrize(
    ('folders', 'refused'),
    [
        (['train/ant', 'val/ant'], True),
        (['Train/ant', 'test', 'meta'], False),  # one of three: a class, perhaps
        (['train/ant', 'meta'], True),
        (['training/ant', 'validation/ant', 'annotations'], True),
        (['train', 'val', 'test'], False),  # without folders, these are classes
        (['bus', 'car', 'train/steam', 'tram'], False),
    ],
)
def test_parts_are_no_classes(folders, refused, scope, tmp_path):
    """Neither packed nor trained on as classes."""
    make_folders(tmp_path, '1.jpg', classes=folders)
    dataset = dict(type='CustomDataset', data_root=str(tmp_path))
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    if not refused:
        items_of_folder(tmp_path)
        check_data(cfg, ('train_dataloader',))
        return
    first = sorted(folders)[0].partition('/')[0]
    said = r"'.*' has the folders .*, which are parts of a dataset and no classes; give one of them"
    with pytest.raises(InputError, match=f'^SOURCE: {said}'):
        items_of_folder(tmp_path)
    with pytest.raises(InputError, match=f'^train_dataloader.dataset: {said}') as caught:
        check_data(cfg, ('train_dataloader',))
    assert first in str(caught.value)
    assert len(items_of_folder(tmp_path, with_label=False)[0]) == len(folders)


def test_empty_folders_say_what_they_have(scope, tmp_path):
    make_folders(tmp_path, '1.heic')
    for labels in (True, False):
        with pytest.raises(InputError, match=r'the dataset is empty: .*; it has 2 \.heic'):
            items_of_folder(tmp_path, labels)
    with pytest.raises(InputError, match=r'the folder has no images .*, but 2 \.heic'):
        find_images([str(tmp_path)])


def test_large_folders_are_not_listed_completely(scope, said, tmp_path, monkeypatch):
    """A part of each class folder; in any case up to its first image."""
    make_folders(tmp_path, *(f'{n}.{suffix}' for n in range(50) for suffix in ('heic', 'jpg')))
    entries = []
    original = image_files._files
    monkeypatch.setattr(
        image_files, '_files', lambda folder: (entries.append(0) or n for n in original(folder))
    )
    for module in (folders, image_files):
        monkeypatch.setattr(module, 'MAX_LISTED', 40)
    folders.check_folder('DATA', tmp_path, IMAGE_SUFFIXES, ('ant', 'bee'))
    assert 40 <= len(entries) < 80
    assert f'of the first {len(entries)} files are left out' in said[0]


def test_predict(said, tmp_path):
    files = ('a/1.jpg', 'a/2.HEIC', 'a/deep/3.mp4', 'a/.git/4.heic', 'a/vis/5.heic', 'b.raw')
    write_files(tmp_path, dict.fromkeys(files, ''))
    found = find_images([f'{tmp_path}/a', f'{tmp_path}/a/*'], leave_out=[tmp_path / 'a/vis'])
    assert [path.name for path in found] == ['1.jpg']
    assert len(said) == 1
    assert said[0].startswith('INPUT: 2 files are left out: 1 .HEIC, 1 .mp4; images end in .avif,')
    said.clear()
    assert [path.name for path in find_images([f'{tmp_path}/b.raw'])] == ['b.raw']  # named itself
    assert [path.name for path in find_images([f'{tmp_path}/b.raw', f'{tmp_path}/*'])] == [
        'b.raw', '1.jpg'
    ]  # fmt: skip
    assert len(said) == 1


def test_shards_of_another_tool(said, tmp_path):
    """A sample without an image is counted; files beside an image are usual."""
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        for name in ('1.jpg', '1.npy', '1.cls', '2.heic', '2.txt', '3.webp', '.4.heic'):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b'0'))
    assert [name for name, _ in open_pack(tmp_path).samples()] == ['1.jpg', '3.webp']
    assert len(said) == 1
    assert said[0].startswith(f"'{tmp_path}': 1 files are left out: 1 .heic; images end in")


@pytest.mark.parametrize(
    ('files', 'settings', 'line'),
    [
        (('1.jpg', '2.jpg', 'list.txt'), {}, None),
        (('1.jpg', '2.JPG', '3.png', '4.png'), {},
         '3 files are left out: 2 .png, 1 .JPG; images end in .jpg (img_suffix); convert'),
        (('1_left.png', '2_right.png'), dict(img_suffix='_left.png'), None),
        (('1.jpg', '1.png'), dict(data_prefix=dict(img_path='img', seg_map_path='img')), None),
        (('1.jpg', 'mask/1.png'), dict(data_prefix=dict(img_path='img', seg_map_path='img')), None),
    ],
)  # fmt: skip
def test_images_of_mmseg(files, settings, line, said, tmp_path, fresh_mmengine):
    init_default_scope('mmseg')
    write_files(tmp_path / 'img', dict.fromkeys(files, ''))
    settings = dict(data_prefix=dict(img_path='img'), test_mode=True) | settings
    dataset = dict(type='BaseSegDataset', data_root=str(tmp_path), pipeline=[], **settings)
    check_data(Config(dict(test_dataloader=dict(dataset=dataset))), ('test_dataloader',))
    assert len(said) == (line is not None)
    assert not said or line in said[0]


def test_broken_links(scope, said, tmp_path):
    """Counted and named in class folders, packs and predictions."""
    make_folders(tmp_path, '1.jpg', '2.heic')
    for name in ('ant/3.jpg', 'ant/notes.txt', 'fly'):  # one may be a class
        (tmp_path / name).symlink_to('gone')
    (tmp_path / 'ant/4.jpg').symlink_to('1.jpg')
    assert len(items_of_folder(tmp_path)[0]) == 3
    assert len(find_images([str(tmp_path)])) == 3
    folders.check_folder('DATA', tmp_path / 'ant', IMAGE_SUFFIXES, None)
    for line, count, names in (
        (said[0], 4, r"2 broken links \(broken: '3.jpg', 'fly'\)"),
        (said[1], 4, r"2 broken links \(broken: '3.jpg', 'fly'\)"),
        (said[2], 2, r"1 broken links \(broken: '3.jpg'\)"),
    ):
        assert re.search(f': {count} files are left out: .*{names}.*; repair or remove the', line)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/1.jpg').symlink_to('gone')
    with pytest.raises(
        InputError, match=r"has no images .*, but 1 broken links \(broken: '1.jpg'\)"
    ):
        find_images([f'{tmp_path}/b'])


def test_text_of_many_kinds():
    others = OtherFiles()
    for number in range(7):
        for _ in range(number + 1):
            others.add(f'a.x{number}')
    assert str(others) == '7 .x6, 6 .x5, 5 .x4, 4 .x3, 3 .x2, and 2 other kinds'
