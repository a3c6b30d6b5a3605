"""Packed data through the tools: packing, training, testing; what is wrong with it in one line."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from helpers import scalars
from mobileone_mm.data.packed.write import items_of_dataset, write_pack
from mobileone_mm.weights.reading import read_checkpoint

from .conftest import SEED, VARIABLES


@pytest.fixture(scope='module')
def packs(tiny_imagenet, tmp_path_factory):
    """Roots of the tiny ImageNet, packed, by format."""
    found = {}
    for form in ('shards', 'lmdb'):
        found[form] = tmp_path_factory.mktemp(form)
        for split in ('train', 'val'):
            items, classes = items_of_dataset(
                dict(type='mmpretrain.ImageNet', data_root=str(tiny_imagenet), split=split)
            )
            write_pack(items, found[form] / split, form, classes)
    return found


@pytest.fixture
def packed(packs, tmp_path, monkeypatch):
    """Copy the packed data, so that a test may damage it; return also the root of the configs."""

    def make(form='shards'):
        monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path / form))
        return Path(shutil.copytree(packs[form], tmp_path / form))

    return make


def options(*more):
    kinds = [f'{part}_dataloader.dataset.type=mobileone_mm.PackedDataset'
             for part in ('train', 'val', 'test')]  # fmt: skip
    return ('--cfg-options', *kinds, *more)


def test_same_weights_and_predictions(trained_run, tiny_config, tool, tmp_path, monkeypatch):
    """Trained on folders and on what the tool packed: one line differs, the weights do not."""
    theirs = read_checkpoint(trained_run('cls') / 'epoch_1.pth')['state_dict']
    config = tiny_config('cls', SEED)
    root = tmp_path / 'packed'
    for split in ('train', 'val'):
        assert tool('pack_dataset', config, root / split, '--split', split) == 0
    monkeypatch.setenv('IMAGENET_ROOT', str(root))
    assert tool('train', config, '--work-dir', tmp_path / 'b', *options()) == 0
    ours = read_checkpoint(tmp_path / 'b' / 'epoch_1.pth')['state_dict']
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    out = tmp_path / 'predictions.csv'
    argv = (config, tmp_path / 'b' / 'epoch_1.pth', '--work-dir', tmp_path / 'test', '--out', out)
    assert tool('test', *argv, *options()) == 0
    named = [line.split(',')[0] for line in out.read_text().splitlines()[1:]]
    listed = (root / 'val' / 'labels.txt').read_text().splitlines()
    assert named == [line.split()[0] for line in listed]


SHARDS = ('train_dataloader.sampler.type=mobileone_mm.ShardSampler',
          'train_dataloader.sampler.window=3')  # fmt: skip


def test_resume_shard_by_shard(packed, tiny_config, tool, tmp_path):
    """A run that is continued after its first epoch ends with the weights of an uninterrupted one."""
    lines = """
randomness = dict(seed=1)
train_cfg = dict(max_epochs=2)
train_dataloader.update(batch_size=2, num_workers=1, persistent_workers=True)
"""
    config = tiny_config('cls', lines)
    packed()
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    settings = options(*SHARDS)
    assert tool('train', config, '--work-dir', whole, '--no-validate', *settings) == 0
    broken.mkdir()
    shutil.copy(whole / 'epoch_1.pth', broken)
    argv = ('--work-dir', broken, '--no-validate', '--resume')
    assert tool('train', config, *argv, *settings) == 0
    ours, theirs = (read_checkpoint(run / 'epoch_2.pth')['state_dict'] for run in (broken, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_two_processes(packed, tiny_config, torchrun, tmp_path):
    config = tiny_config('cls', 'train_dataloader.update(batch_size=2, num_workers=1)\n')
    packed()
    (tmp_path / 'shards' / 'train' / 'index.npz').unlink()  # both processes make it
    settings = options(*SHARDS, 'train_dataloader.sampler.read_ahead=True')
    torchrun('train', config, '--work-dir', tmp_path / 'run', *settings)
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
    assert (tmp_path / 'shards' / 'train' / 'index.npz').is_file()


def in_pack(place, pack, root):
    return [f'{place}.backend_args.backend=mobileone_mm.packed', f'{place}.backend_args.path={pack}',
            f'{place}.backend_args.root={root}']  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('task', ['det', 'seg'])
def test_detection_and_segmentation(task, tiny_config, tool, tmp_path, roots, monkeypatch):
    """Images (and masks) out of a pack, their folders gone: the losses of the run with folders."""
    config = tiny_config(task, SEED)
    variable, root = VARIABLES[task], tmp_path / 'lists'
    shutil.copytree(roots[variable], root, ignore=lambda *_: {
        'train2017', 'val2017', 'JPEGImages', 'SegmentationClass'})  # fmt: skip
    if task == 'seg':
        (root / 'JPEGImages').mkdir()  # PascalVOCDataset insists on it
    argv = ('--work-dir', tmp_path / 'folders', '--no-validate')
    assert tool('train', config, *argv) == 0
    assert tool('pack_dataset', roots[variable], tmp_path / 'pack', '--no-labels') == 0
    path = 'train_dataloader.dataset' + ('.dataset' if task == 'det' else '')
    places = [f'{path}.pipeline.{step}' for step in ((0,) if task == 'det' else (0, 1))]
    monkeypatch.setenv(variable, str(root))
    argv = ('--work-dir', tmp_path / 'packed', '--no-validate', '--cfg-options')
    settings = [line for place in places for line in in_pack(place, tmp_path / 'pack', root)]
    assert tool('train', config, *argv, *settings) == 0
    theirs, ours = (
        [row['loss'] for row in scalars(tmp_path / name) if 'loss' in row]
        for name in ('folders', 'packed')
    )
    assert ours == theirs != []


def test_refused_packing(refused, tiny_config, tmp_path):
    config = tiny_config('cls')
    out = tmp_path / 'out'
    assert 'is not a folder' in refused('pack_dataset', tmp_path / 'none', out)
    assert 'no such file' in refused('pack_dataset', tmp_path / 'none.py', out)
    assert 'is not a config' in refused('pack_dataset', tmp_path, out, '--split', 'val')
    line = refused('pack_dataset', config, out, '--shard-size', '200K')
    assert "--shard-size: invalid int value: '200K'" in line
    option = ('--cfg-options', 'val_dataloader=None')
    line = refused('pack_dataset', config, out, '--split', 'val', *option)
    assert "has no 'val_dataloader'" in line


def image_without_class(train):
    (train / 'labels.txt').unlink()
    with tarfile.open(train / 'more.tar', 'w') as tar:
        member = tarfile.TarInfo('x/a.jpg')
        member.size = 1
        tar.addfile(member, io.BytesIO(b'x'))


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (image_without_class, 'has no class; pack the dataset with classes'),
        (lambda train: (train / 'shard-000000.tar').write_bytes(b'x' * 3000),
         'is not a tar file, is compressed or is damaged'),
    ],
)  # fmt: skip
def test_refused_data(spoil, message, packed, tiny_config, refused, tmp_path):
    """One fault of each check; tests/data has the others."""
    config = tiny_config('cls')
    spoil(packed() / 'train')
    before = set(tmp_path.rglob('*'))
    run = ('train', config, '--work-dir', tmp_path / 'run', *options())
    assert message in refused(*run, got_somewhere=True)
    assert {path.name for path in {*tmp_path.rglob('*')} - before} <= {'index.npz'}


def test_refused_settings(packed, tiny_config, refused):
    config, lists = tiny_config('cls'), 'train_dataloader.dataset.ann_file=train.txt'
    packed()
    line = refused('train', config, *options(lists), got_somewhere=True)
    assert 'the packed dataset has the classes' in line
    packed('lmdb')
    line = refused('train', config, *options(*SHARDS), got_somewhere=True)
    assert 'got PackedDataset without tar shards' in line
