"""Pack the images of a folder or of a config into few large files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.explain import config_faults
from ..config.read import SUFFIXES
from ..config.tree import datasets
from ..data.packed.write import Item, Source, items_of_dataset, items_of_folder, write_pack
from ..errors import InputError, several
from ..runs.prepare import Purpose, prepare


def pack_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    form: str = 'shards',
    split: str | None = None,
    labels: bool = True,
    seed: int | None = 0,
    shard_size: int = 500,
    cfg_options: Mapping[str, Any] | None = None,
) -> str:
    """Pack images into tar shards or an LMDB, and check the result; after an error write nothing.

    An image that cannot be read is left out. InputError if none remains.

    Args:
        source: A folder with one folder for each class, or a config.
        out: New or empty folder.
        form: ``shards`` or ``lmdb``.
        split: Which dataset of a config: ``train`` (the default), ``val`` or ``test``.
        labels: False for images without classes, such as those of a detector.
        seed: Seed of the order within the shards; None keeps the order of the dataset.
        shard_size: Size of a shard in MB.

    Returns a summary, with a second line for images that are left out. ProofError if
    the images that are read back differ.
    """
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES and not path.is_dir():
        items, classes = _of_config(path, f'{split or "train"}_dataloader', cfg_options)
    else:
        if split or cfg_options:
            raise InputError(f"--split, --cfg-options: '{source}' is not a config; leave them out")
        items, classes = items_of_folder(path, labels)
    if not labels:
        items, classes = [Item(item.path, item.name) for item in items], None
    packed = write_pack(items, out, form, classes, seed, shard_size)
    files = sum(file.suffix == '.tar' for file in Path(out).expanduser().iterdir())
    into = f'{files} shards' if form == 'shards' else 'an LMDB'
    classed = f' of {len({item.label for item in packed.items})} classes' if labels else ''
    others = f'\n{len(packed.left_out)} images are left out: {several(packed.left_out)}'
    return (
        f'{out}: {len(packed.items)} images{classed}, {packed.size / 1e6:.1f} MB, in {into}; each of '
        'them was read back and is the same'
    ) + (others if packed.left_out else '')


def _of_config(path: Path, loader: str, options: Mapping[str, Any] | None) -> Source:
    cfg = prepare(
        path, options, Purpose(needs=(loader,), loaders=(loader,), changes=('image_suffixes',))
    ).cfg
    found = list(datasets(cfg, loader))
    if len(found) != 1:
        raise InputError(
            f"config '{path}': {loader} has {len(found)} datasets; only one can be packed at a time"
        )
    with config_faults(cfg):
        return items_of_dataset(found[0][1])
