"""The tiny ImageNet in its three layouts."""

import io
import tarfile

import pytest

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
def pack(source):
    """A function that packs the tiny ImageNet, into several shards of about 12 kB."""

    def write(folder, form='shards', **options):
        items, classes = items_of_dataset(source)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('mobileone_mm.data.packed.write._MB', 12_000)
            write_pack(items, folder, form, classes, shard_size=1, **options)
        return folder

    return write


@pytest.fixture(scope='session')
def layouts(source, pack, tmp_path_factory):
    """Settings of the same dataset as folders, shards (several, shuffled) and LMDB."""
    found = {'folders': {**source, 'pipeline': PIPELINE}}
    for form in ('shards', 'lmdb'):
        root = pack(tmp_path_factory.mktemp(form) / 'train', form, seed=3).parent
        found[form] = dict(
            type='mobileone_mm.PackedDataset', data_root=str(root), split='train', pipeline=PIPELINE
        )
    return found


@pytest.fixture(params=['shards', 'lmdb'])
def form(request):
    return request.param


@pytest.fixture(scope='session')
def write_tar():
    """A function that writes a tar file of (name, content) pairs."""

    def write(path, members):
        with tarfile.open(path, 'w') as tar:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return path

    return write
