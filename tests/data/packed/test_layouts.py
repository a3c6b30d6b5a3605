"""Folders, LMDB and tar shards are one dataset: images, classes and batches bit by bit."""

import copy
import multiprocessing
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import fileio
from mmengine.fileio import LmdbBackend
from mmengine.registry import DATASETS

from helpers import ROOT
from mobileone_mm.config.read import load_config
from mobileone_mm.data.packed.packs import open_pack, read_pack
from mobileone_mm.training.runner import Runner

build = DATASETS.build


def batches(dataset, **options):
    """What a loader of the Runner yields: the augmented images with their labels and names."""
    settings = dict(
        batch_size=3,
        num_workers=0,
        dataset=copy.deepcopy(dataset),
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    loader = Runner.build_dataloader({**settings, **options}, seed=7)
    found = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            rows = [(int(s.gt_label), Path(s.img_path).name) for s in batch['data_samples']]
            found.append((batch['inputs'].tolist(), rows))
    assert len(found) == 6
    return found


def test_same_bytes_and_labels(form, layouts):
    folders, packed = build(layouts['folders']), build(layouts[form])
    assert len(folders) == len(packed) == 8
    assert form == 'lmdb' or len(packed.pack.index.shards) > 1
    assert packed.metainfo['classes'] == tuple(folders.metainfo['classes'])
    for index in range(len(folders)):
        mine, theirs = packed.get_data_info(index), folders.get_data_info(index)
        assert mine['gt_label'] == theirs['gt_label']
        assert fileio.get(mine['img_path']) == Path(theirs['img_path']).read_bytes()
        assert packed.get_cat_ids(index) == folders.get_cat_ids(index)


@pytest.fixture(scope='module')
def expected(layouts):
    return batches(layouts['folders'])


def test_same_batches(form, layouts, expected):
    for options in (dict(num_workers=2, persistent_workers=True), {}):
        assert batches(layouts[form], **options) == expected


@pytest.mark.slow
def test_same_batches_from_spawned_workers(form, layouts, expected):
    options = dict(num_workers=1, multiprocessing_context='spawn')
    assert batches(layouts[form], **options) == expected


def test_forked_after_use(form, layouts):
    """The parent has read, and goes on reading while its child does."""
    dataset = build(layouts[form])
    path = dataset.get_data_info(0)['img_path']
    expected = fileio.get(path)
    context = multiprocessing.get_context('fork')
    pipe, end = context.Pipe()
    child = context.Process(target=lambda: end.send(fileio.get(path)))
    child.start()
    assert fileio.get(path) == expected
    assert pipe.poll(30)
    assert pipe.recv() == expected
    child.join(30)
    assert child.exitcode == 0


def test_pickled_while_open(form, layouts):
    dataset = build(layouts[form])
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert again.pack is dataset.pack, 'opened once in a process'
    np.random.seed(0)
    expected = dataset[3]['inputs']
    np.random.seed(0)
    assert torch.equal(again[3]['inputs'], expected)


def test_indices(form, layouts):
    every = build(layouts[form]).pack_rows()
    assert build(layouts[form]).get_subset([4, 6]).pack_rows().tolist() == every[[4, 6]].tolist()
    for indices, rows in ((3, every[:3]), ([5, 1, 2], every[[5, 1, 2]])):
        packed, folders = (build({**layouts[f], 'indices': indices}) for f in (form, 'folders'))
        assert len(packed) == 3
        assert packed.get_gt_labels().tolist() == folders.get_gt_labels().tolist()
        assert packed.pack_rows().tolist() == rows.tolist()


def test_names_of_another_root(form, layouts, source):
    """Detection and segmentation: the dataset knows paths, the loader finds them in the pack."""
    pack, images = (Path(each['data_root'], 'train') for each in (layouts[form], source))
    backend = dict(backend='mobileone_mm.packed', path=str(pack), root='data/images')
    for path in sorted(images.rglob('*.JPEG'))[:3]:
        name = path.relative_to(images)
        assert fileio.get(f'data/images/{name}', backend_args=backend) == path.read_bytes()
        text = fileio.get_text(f'packed://{pack}!/{name}', 'latin-1')
        assert text.encode('latin-1') == path.read_bytes()
        if form == 'lmdb':  # mmengine's backend reads our LMDB: keys are names, values are files
            open_pack(pack).close()
            assert LmdbBackend(str(pack)).get(name.as_posix()) == path.read_bytes()
    with pytest.raises(FileNotFoundError, match='no image of that name'):
        fileio.get('data/images/none.jpg', backend_args=backend)


def test_few_open_files(layouts, monkeypatch):
    monkeypatch.setattr('mobileone_mm.data.packed.packs._MAX_OPEN', 1)
    pack = read_pack(Path(layouts['shards']['data_root'], 'train'))
    before = len(os.listdir('/proc/self/fd'))
    for name, _ in pack.samples():
        pack.read(name)
    assert len(os.listdir('/proc/self/fd')) <= before + 1


def test_snippets_of_the_page(tiny_config):
    """docs/data.md: the config lines are read unchanged."""
    page = (ROOT / 'docs' / 'data.md').read_text()
    train, load = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    path = tiny_config('cls')
    mine = path.with_name('mine.py')
    mine.write_text(f"_base_ = ['{path}']\n{train}")
    cfg = load_config(mine)
    for dataset in (cfg.train_dataloader.dataset, cfg.test_dataloader.dataset):
        assert dataset.type == 'mobileone_mm.PackedDataset'
    assert cfg.train_dataloader.dataset.split == 'train', 'the rest is kept'
    assert cfg.train_dataloader.sampler == dict(
        type='mobileone_mm.ShardSampler', shuffle=True, window=4096, read_ahead=True
    )
    names: dict = {}
    exec(load, names)
    assert names['load']['backend_args']['backend'] == 'mobileone_mm.packed'
