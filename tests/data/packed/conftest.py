"""The tiny ImageNet in its three layouts."""

import io
import tarfile
from importlib.util import find_spec

import pytest
from mmengine.registry import DATASETS

from mobileone_mm.data.packed.write import items_of_dataset, write_pack

PIPELINE = [
    dict(type='mobileone_mm.LoadImage', on_error='raise'),
    dict(type='mmpretrain.RandomResizedCrop', scale=32, backend='pillow'),
    dict(type='mmpretrain.RandomFlip', prob=0.5),
    dict(type='mmpretrain.PackInputs'),
]


@pytest.fixture(scope='session')
def source(tiny_imagenet):
    return dict(type='mmpretrain.ImageNet', data_root=str(tiny_imagenet), split='train')


@pytest.fixture(scope='session')
def layouts(source, tmp_path_factory):
    """Settings of the same dataset as folders, shards (several, shuffled) and LMDB."""
    found = {'folders': {**source, 'pipeline': PIPELINE}}
    for form in ('shards', 'lmdb') if find_spec('lmdb') else ('shards',):
        root = tmp_path_factory.mktemp(form)
        _pack(source, root / 'train', form, seed=3)
        found[form] = dict(
            type='mobileone_mm.PackedDataset', data_root=str(root), split='train', pipeline=PIPELINE
        )
    return found


@pytest.fixture
def shards(source, tmp_path):
    """A function that packs the tiny ImageNet into shards of its own, and gives their folder."""

    def make(name='train', **options):
        return _pack(source, tmp_path / name, 'shards', **options)

    return make


def _pack(source, folder, form, **options):
    """Pack into shards of about 12 kB, so that there are several."""
    items, classes = items_of_dataset(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mobileone_mm.data.packed.write._MB', 12_000)
        write_pack(items, folder, form, classes, shard_size=1, **options)
    return folder


@pytest.fixture
def build():
    return DATASETS.build


@pytest.fixture(scope='session')
def write_tar():
    """A function that writes a tar file of (name, content) pairs."""
    return _write_tar


def _write_tar(path, members, **options):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, 'w', **options) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
