"""The written datasets: layout, values, made once and whole."""

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from demo import make_dataset
from demo.generator import CLASSES, IMAGENET_CLASSES, LAYOUTS, VOC_CLASSES, make
from demo.generator.drawings import THINGS
from helpers import ROOT, python
from mobileone_mm.cli.run import call_tool
from mobileone_mm.errors import InputError

DATASETS = ('coco', 'imagenet', 'voc', 'ade')
COUNTS = {'num_train': 16, 'num_val': 8}
SIZE = 64


@pytest.fixture(scope='module')
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny dataset of each layout; `images` are unseen ones."""
    base = tmp_path_factory.mktemp('synthetic')
    made = {name: make(name, base / name, SIZE, **COUNTS) for name in DATASETS}
    return {**made, 'images': make('images', base / 'images', SIZE, num=8)}


def _files(root: Path) -> dict[Path, bytes]:
    return {p.relative_to(root): p.read_bytes() for p in root.rglob('*') if p.is_file()}


@pytest.mark.parametrize('layout', DATASETS)
def test_same_arguments_same_bytes(layout: str, roots: dict[str, Path], tmp_path: Path) -> None:
    again = make(layout, tmp_path / 'again', SIZE, **COUNTS)
    first = _files(roots[layout])
    assert _files(again) == first
    other = _files(make(layout, tmp_path / 'other', SIZE, seed=1, **COUNTS))
    images = [other[path] for path in other if path.suffix.lower() in ('.jpg', '.jpeg')]
    assert len(images) == 24
    assert not {*first.values()} & {*images}


def test_images_of_all_splits_are_different(roots: dict[str, Path]) -> None:
    """Unseen ones have annotations of their own."""
    unseen = {path.name for path in roots['images'].glob('*.jpg')}
    files = [*roots['coco'].rglob('*.jpg'), *roots['images'].glob('*.jpg')]
    assert len(files) == 32
    assert len({path.read_bytes() for path in files}) == 32
    assert len({path.name for path in files}) == 32
    table = json.loads((roots['images'] / 'instances.json').read_text())
    assert {image['file_name'] for image in table['images']} == unseen
    ids = {image['id'] for image in table['images']}
    assert {item['image_id'] for item in table['annotations']} == ids


def test_coco_annotations(roots: dict[str, Path]) -> None:
    coco_api = pytest.importorskip('pycocotools.coco')
    for split, count in (('train2017', 16), ('val2017', 8)):
        path = roots['coco'] / 'annotations' / f'instances_{split}.json'
        table = json.loads(path.read_text())
        assert set(table) == {'info', 'licenses', 'images', 'annotations', 'categories'}
        assert len(table['categories']) == 80
        coco = coco_api.COCO(str(path))
        assert len(coco.imgs) == count
        names = {coco.cats[item['category_id']]['name'] for item in coco.anns.values()}
        assert names == set(CLASSES)
        for image in coco.imgs.values():
            with Image.open(roots['coco'] / split / image['file_name']) as opened:
                assert opened.size == (image['width'], image['height']) == (SIZE, SIZE)
            assert coco.getAnnIds(imgIds=[image['id']])
        for item in coco.anns.values():
            left, top, width, height = item['bbox']
            rows, columns = np.nonzero(coco.annToMask(item))
            assert (left, top) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert item['area'] == len(rows)
            assert item['iscrowd'] == 0


def test_imagenet_lists_name_every_image(roots: dict[str, Path]) -> None:
    for split, count in (('train', 16), ('val', 8)):
        folder = roots['imagenet'] / split
        lines = (roots['imagenet'] / 'meta' / f'{split}.txt').read_text().splitlines()
        table = dict(line.split(' ') for line in lines)
        assert set(table) == {str(path.relative_to(folder)) for path in folder.rglob('*.JPEG')}
        assert len(table) == count
        index = {THINGS[name].wnid: THINGS[name].imagenet for name in IMAGENET_CLASSES}
        assert all(int(label) == index[file.split('/')[0]] for file, label in table.items())
        assert {int(label) for label in table.values()} == set(index.values())


def test_voc_masks(roots: dict[str, Path]) -> None:
    seen: set[int] = set()
    for split, count in (('train', 16), ('val', 8)):
        names = (roots['voc'] / f'ImageSets/Segmentation/{split}.txt').read_text().split()
        assert len(names) == count
        for name in names:
            with Image.open(roots['voc'] / 'SegmentationClass' / f'{name}.png') as mask:
                assert mask.mode == 'P'
                palette, values = mask.getpalette(), np.asarray(mask)
            assert len(palette) == 768
            assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            assert palette[3 * 15 : 3 * 16] == [192, 128, 128]
            assert palette[-3:] == [224, 224, 192]
            with Image.open(roots['voc'] / 'JPEGImages' / f'{name}.jpg') as opened:
                assert opened.size == values.shape[::-1]
            seen |= set(np.unique(values).tolist())
            # 255 is a border between objects and background.
            for axis in (0, 1):
                one, two = np.delete(values, 0, axis), np.delete(values, -1, axis)
                assert not ((one != two) & (one != 255) & (two != 255)).any()
            assert 0.01 < (values == 255).mean() < 0.25
    assert seen == {0, 255} | {THINGS[name].voc for name in VOC_CLASSES}


def test_ade_masks(roots: dict[str, Path]) -> None:
    seen: set[int] = set()
    for split, count in (('training', 16), ('validation', 8)):
        images = sorted((roots['ade'] / 'images' / split).glob('*.jpg'))
        masks = sorted((roots['ade'] / 'annotations' / split).glob('*.png'))
        assert [path.stem for path in images] == [path.stem for path in masks]
        assert len(masks) == count
        for path in masks:
            with Image.open(path) as mask:
                assert mask.mode == 'L'
                seen |= set(np.unique(np.asarray(mask)).tolist())
    assert {thing.ade for thing in THINGS.values()} <= seen
    assert max(seen) <= 150


@pytest.mark.parametrize('layout', LAYOUTS)
def test_second_call_changes_nothing(layout: str, tmp_path: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}

    counts = {'num': 3} if layout == 'images' else {'num_train': 2, 'num_val': 1}
    root = make(layout, tmp_path / 'data', 32, **counts)
    before = times()
    assert make(layout, root, 32, **counts) == root
    assert times() == before
    with pytest.raises(InputError, match=r'^root: .* other values of seed; delete it'):
        make(layout, root, 32, seed=1, **counts)
    assert times() == before
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_an_empty_folder_is_filled_and_others_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'data').mkdir()
    assert (make('images', tmp_path / 'data', 32, num=1) / 'instances.json').is_file()
    with pytest.raises(InputError, match='^root: .* is not empty'):
        make('coco', tmp_path, 32)
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Mock(side_effect=OSError(28, 'No space left on device'))
    monkeypatch.setattr('demo.generator.layouts.write_image', full)
    with pytest.raises(InputError, match='^root: cannot write .*: the disk is full'):
        make('coco', tmp_path / 'data', 32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'num_train': 0}, 'num_train: got 0; expected a whole number from 1'),
        ({'size': 31}, 'size: got 31; expected a whole number from 32 to 4096'),
        ({'size': 4097}, 'size: got 4097'),
        ({'seed': -1}, 'seed: got -1'),
    ],
)
def test_bad_arguments(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f'^{message}'):
        make('voc', tmp_path / 'data', **arguments)
    assert not list(tmp_path.iterdir())


def test_tool(tmp_path: Path) -> None:
    options = ('images', tmp_path / 'unseen', '--num', 2, '--size', 32, '--seed', 4)
    assert python('-m', 'demo.make_dataset', *options, cwd=ROOT).stderr == ''
    assert _files(tmp_path / 'unseen') == _files(make('images', tmp_path / 'own', 32, 4, num=2))


@pytest.mark.parametrize(
    'line',
    ['voc notes.txt', 'ade x --num-val 0', 'coco x --size big', 'coco x --num 3', 'cub x',
     'coco notes.txt/data'],
)  # fmt: skip
def test_tool_refuses(line: str, tmp_path: Path, capsys) -> None:
    (tmp_path / 'notes.txt').write_text('mine')
    layout, root, *options = line.split()
    with pytest.raises(SystemExit, match='^2$'):  # by argparse, or by its code
        sys.exit(call_tool(make_dataset.main, [layout, str(tmp_path / root), *options]))
    said = capsys.readouterr()
    assert said.err.startswith('error: ')
    assert (said.err.count('\n'), said.out) == (1, '')
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {'notes.txt': 'mine'}
