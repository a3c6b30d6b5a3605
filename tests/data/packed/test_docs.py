"""The config lines of docs/data.md are read unchanged."""

from __future__ import annotations

import re
from pathlib import Path

from mobileone_mm.config.read import load_config

PAGE = Path(__file__).resolve().parents[3] / 'docs' / 'data.md'


def test_snippets(tiny_config):
    train, load = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
    base = "_base_ = ['{}']\n"
    path = tiny_config('cls')
    mine = path.with_name('mine.py')
    mine.write_text(base.format(path) + train)
    loaders = load_config(mine)
    assert loaders.train_dataloader.dataset.type == 'mobileone_mm.PackedDataset'
    assert loaders.train_dataloader.dataset.split == 'train', 'the rest is kept'
    assert loaders.test_dataloader.dataset.type == 'mobileone_mm.PackedDataset'
    assert loaders.train_dataloader.sampler == dict(
        type='mobileone_mm.ShardSampler', shuffle=True, window=4096, read_ahead=True
    )
    names: dict = {}
    exec(load, names)
    assert names['load']['backend_args']['backend'] == 'mobileone_mm.packed'
